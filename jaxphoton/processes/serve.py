"""What a child process does first: it takes its streams, and ends with its parent.

Only the standard library is imported here, before the protocol has left stdout.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import IO

_PR_SET_PDEATHSIG = 1


def take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """stdin and stdout for the protocol alone: prints of any library go to stderr, and nobody reads our tasks."""
    # First: where the parent has no stderr, this becomes 2.
    null = os.open(os.devnull, os.O_RDWR)
    tasks, replies = os.dup(0), os.dup(1)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if null > 2:
        os.close(null)
    return os.fdopen(tasks, "rb"), os.fdopen(replies, "wb")


def die_with_parent() -> None:
    """The end of the parent ends this process even while it is stopped and cannot look at its stdin (Linux alone)."""
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError, AttributeError):  # a Python built without it
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
