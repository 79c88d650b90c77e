"""Keeps the interpreter and a CPU device's threads on different cores, as far as there are several."""

from __future__ import annotations

import os


class Pinning:
    """`keep_host_core_free` before jax starts its device threads, `take_host_core` once it has.

    XLA's threads inherit the cores of the thread that starts them; on a GPU, `release` is all that is called for.
    """

    def __init__(self):
        supported = hasattr(os, "sched_setaffinity")
        self._cores = sorted(os.sched_getaffinity(0)) if supported else []

    def keep_host_core_free(self) -> None:
        if len(self._cores) > 1:
            os.sched_setaffinity(0, self._cores[1:])

    def take_host_core(self) -> bool:
        """Moves the calling thread to the core that was kept free; False if there is none to spare."""
        if len(self._cores) > 1:
            os.sched_setaffinity(0, self._cores[:1])
        return len(self._cores) > 1

    def release(self) -> None:
        if self._cores:
            os.sched_setaffinity(0, self._cores)
