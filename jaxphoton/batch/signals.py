"""Ctrl-C once: finish what is under way; twice: now."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130


class Stop:
    """Whether the run was asked to end.

    Attributes:
      asked: by a first signal.

    Args:
      tell: called at the first signal, in its handler.
    """

    def __init__(self, tell: Callable[[], None]):
        self.asked, self._tell = False, tell

    def handle(self, number: int, _: object) -> None:
        if self.asked:
            # Not an exception: the device may hold the main thread for long. The journal's lines are safe.
            os._exit(INTERRUPTED)
        self.asked = True
        self._tell()


@contextmanager
def stoppable(tell: Callable[[], None], signals: bool = True) -> Iterator[Stop]:
    """Inside, SIGINT and SIGTERM set `asked`, and end the process when they come again; without `signals` nothing."""
    stop = Stop(tell)
    if not signals or threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle them
        return
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
