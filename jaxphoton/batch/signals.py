"""Ctrl-C once: finish what is under way; twice: now."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_FIRST = b"\nstopping: what is under way is finished first; once more to stop now\n"
INTERRUPTED = 130


class Stop:
    """Whether the run was asked to end.

    Attributes:
      asked: by a first signal.
    """

    def __init__(self):
        self.asked = False

    def handle(self, number: int, _: object) -> None:
        if self.asked:
            # Not an exception: the device may hold the main thread for long. The journal's lines are safe.
            os._exit(INTERRUPTED)
        self.asked = True
        os.write(2, _FIRST)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside, SIGINT and SIGTERM set `asked`, and end the process when they come again."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
