"""The parent's side of one image worker: its pictures and its blocks of shared memory."""

from __future__ import annotations

import fcntl
import os
import tempfile

import numpy as np

from jaxphoton.image.worker import read_block, write_block
from jaxphoton.processes.child import Child, child_environment
from jaxphoton.processes.frames import Message, pack

_WORKER_VARIABLES = {
    # Workers multiply no matrices: no threads for it.
    "OPENBLAS_NUM_THREADS": "1",
    # glibc gives memory back after every picture and faults it in again for the next: a fifth of a small one's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class WorkerProcess(Child):
    """A running worker. Pictures are answered in the order in which they were sent."""

    def __init__(self, slots: int, environment: dict[str, str], limit: float):
        """Starts the program, without waiting for it.

        Args:
          slots: pictures that may be sent and not yet received; each has a block of its own.
          environment: see `worker_environment`.
          limit: seconds that a picture may take.
        """
        self._blocks: list[int] = []
        self._sent = self._received = 0
        try:
            while len(self._blocks) < slots:
                self._blocks.append(_shared_block())
            super().__init__(("-m", "jaxphoton.image.worker"), environment, limit, inherited=self._blocks)
        except BaseException:
            self._close_blocks()
            raise

    def send_picture(self, name: str, path: str | None, data: bytes | None) -> None:
        """Gives the worker a picture: the path or the bytes of a file.

        Raises:
          EOFError, OSError: it has died.
        """
        block = self._blocks[self._sent % len(self._blocks)]
        if data is not None:
            write_block(block, memoryview(data))
        self._sent += 1
        self.send(pack({"name": name, "path": path, "length": len(data or b""), "block": block}))

    def receive(self) -> Message:
        reply = super().receive()
        self._received += 1
        return reply

    def read_pixels(self, pixels: np.ndarray) -> None:
        """Fills a contiguous array with the crops of the answer that came last."""
        block = self._blocks[(self._received - 1) % len(self._blocks)]
        read_block(block, pixels.data.cast("B"))

    def stop(self) -> str:
        try:
            return super().stop()
        finally:
            self._close_blocks()

    def _close_blocks(self) -> None:
        while self._blocks:
            os.close(self._blocks.pop())


def worker_environment() -> dict[str, str]:
    """The variables of an image worker."""
    return child_environment() | _WORKER_VARIABLES


def _shared_block() -> int:
    """A file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        block = os.memfd_create("jaxphoton-image")
    else:
        with tempfile.TemporaryFile() as file:
            block = os.dup(file.fileno())
    if block > 2:
        return block
    # Free here where the caller closed a standard stream; in the worker these numbers are its streams.
    try:
        return fcntl.fcntl(block, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(block)
