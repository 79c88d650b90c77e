"""A way to hold an engine still."""

from __future__ import annotations

import threading

PATIENCE = 300.0  # seconds after which a test fails; none waits so long


class BlockingCallback:
    """An `on_token` that holds the engine's thread at the first token until it is released."""

    def __init__(self):
        self._reached, self._released = threading.Event(), threading.Event()

    def __call__(self, token, finish) -> None:
        self._reached.set()
        assert self._released.wait(PATIENCE)

    def reached(self) -> None:
        assert self._reached.wait(PATIENCE)

    def release(self) -> None:
        self._released.set()
