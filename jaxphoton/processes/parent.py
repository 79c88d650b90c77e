"""The parent of this process, as a child sees it: what it sends, what it is told, and that nothing outlives it.

Only the standard library is imported here, before the protocol has left stdout.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from jaxphoton.processes.pipe import Message, read_frame, write_frame

_PR_SET_PDEATHSIG = 1


class Parent:
    """The other end of this process's stdin and stdout. When it is gone, whoever notices ends this process."""

    def __init__(self, *ignored: signal.Signals):
        """Takes the streams; first thing in a program.

        Args:
          ignored: signals that reach all processes of a terminal or a batch system; the parent decides what they mean.
        """
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        self._orders, self._replies = _take_streams()
        self._lock = threading.Lock()
        _die_with_parent()

    def greet(self, line: bytes) -> None:
        """Sends a line that tells our messages from what a site's start-up files have printed before."""
        self._replies.write(line)
        self._replies.flush()

    def send(self, message: Message) -> None:
        """From any thread."""
        try:
            with self._lock:
                write_frame(self._replies, message)
                self._replies.flush()
        except BrokenPipeError:
            os._exit(0)

    def receive(self) -> Message:
        """The next message."""
        try:
            return read_frame(self._orders)
        except EOFError:
            os._exit(0)

    def listen(self, take: Callable[[Message], object]) -> None:
        """Has each message taken on a thread of its own, so that the end of the parent also ends a process stuck in its
        work."""

        def loop() -> None:
            while True:
                take(self.receive())

        threading.Thread(target=loop, daemon=True).start()

    def beat(self, seconds: float, message: Callable[[], Message]) -> None:
        """Sends a sign of life every so often, on a thread of its own: what takes minutes is not taken for a hang."""

        def loop() -> None:
            while True:
                time.sleep(seconds)
                self.send(message())

        threading.Thread(target=loop, daemon=True).start()


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """stdin and stdout for the protocol alone: prints of any library go to stderr, and nobody reads our orders."""
    # First: where the parent has no stderr, this becomes 2.
    null = os.open(os.devnull, os.O_RDWR)
    orders, replies = os.dup(0), os.dup(1)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if null > 2:
        os.close(null)
    return os.fdopen(orders, "rb"), os.fdopen(replies, "wb")


def _die_with_parent() -> None:
    """The end of the parent ends this process even while it is stopped and cannot look at its stdin (Linux alone)."""
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError, AttributeError):  # a Python built without it
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
