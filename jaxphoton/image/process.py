"""The parent's side of one image worker: starting it, its streams, its blocks of shared memory, its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from jaxphoton.image.worker import READY, read_block, write_block
from jaxphoton.processes.frames import Message, read_frame, write_frame
from jaxphoton.processes.pipe import Pipe, WaitLimit, reap, step_of

# To start: a cold disk and a busy machine included.
START_S = 120.0
# A disk that hangs can hold a killed process for ever.
END_S = 2.0

_WORKER_VARIABLES = {
    # Workers multiply no matrices: no threads for it.
    "OPENBLAS_NUM_THREADS": "1",
    # glibc gives memory back after every picture and faults it in again for the next: a fifth of a small one's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class WorkerProcess:
    """A running worker. Pictures are answered in the order in which they were sent.

    Attributes:
      pid: its process id.
      ready: it has started well.
    """

    def __init__(self, slots: int, environment: dict[str, str], limit: float):
        """Starts the program, without waiting for it.

        Args:
          slots: pictures that may be sent and not yet received; each has a block of its own.
          environment: see `worker_environment`.
          limit: seconds that a picture may take.
        """
        self._blocks: list[int] = []
        self._sent = self._received = 0
        self._limit, self._killed = limit, False
        self.ready = False
        try:
            while len(self._blocks) < slots:
                self._blocks.append(_shared_block())
            self._process = subprocess.Popen(
                # -P: the folder we are in is not searched for modules.
                [sys.executable, "-P", "-m", "jaxphoton.image.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=self._blocks,
                env=environment,
            )
        except BaseException:
            self._close_blocks()
            raise
        assert self._process.stdin and self._process.stdout
        step = step_of(limit)
        self._tasks, self._replies = (
            Pipe(raw, step, self._check) for raw in (self._process.stdin, self._process.stdout)
        )
        self._wait_limit = WaitLimit(START_S, step)
        self.pid = self._process.pid

    def greet(self, settings: Message) -> None:
        """Sends the settings and waits until the worker is ready.

        Raises:
          EOFError, OSError: it has died.
          TookTooLong: it is stopped, or hangs.
        """
        write_frame(self._tasks, settings)
        while not (line := self._replies.readline()).endswith(READY):
            if not line:
                raise EOFError("the worker ended while it started")
        self.ready = True
        self._wait_limit = WaitLimit(self._limit, self._wait_limit.step)

    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, name: str, path: str | None, data: bytes | None) -> None:
        """Gives the worker a picture: the path or the bytes of a file.

        Raises:
          OSError: it has died.
          TookTooLong: the picture it is at takes longer than it may.
        """
        if self._sent == self._received:
            self._wait_limit.restart()
        block = self._blocks[self._sent % len(self._blocks)]
        if data is not None:
            write_block(block, memoryview(data))
        message = {"name": name, "path": path, "length": len(data or b""), "block": block}
        write_frame(self._tasks, message)
        self._sent += 1

    def receive(self) -> Message:
        """The next answer.

        Raises:
          EOFError, OSError, ValueError: the worker has died, or talks nonsense.
          TookTooLong: this picture takes longer than it may.
        """
        reply = read_frame(self._replies)
        self._received += 1
        self._wait_limit.restart()  # only now it begins the next one
        return reply

    def read_pixels(self, pixels: np.ndarray) -> None:
        """Fills a contiguous array with the crops of the answer that came last."""
        block = self._blocks[(self._received - 1) % len(self._blocks)]
        read_block(block, pixels.data.cast("B"))

    def kill(self) -> None:
        """From any thread; a stopped process dies of it too."""
        self._killed = True
        self._process.kill()

    def stop(self) -> str:
        """Ends the process, reaps it and gives its resources back; how it ended, for messages."""
        self.kill()
        code = reap(self._process, END_S)
        for stream in (self._tasks, self._replies):
            with contextlib.suppress(OSError):  # what was not sent yet
                stream.close()
        self._close_blocks()
        if code is None:
            return "killed, but its disk does not let it go"
        return f"exit status {code}" if code >= 0 else f"killed by {_signal_name(-code)}"

    def _check(self) -> None:
        if self._killed:  # its pipes stay open while a disk holds it
            raise EOFError("it was killed")
        self._wait_limit.check()

    def _close_blocks(self) -> None:
        while self._blocks:
            os.close(self._blocks.pop())


def worker_environment() -> dict[str, str]:
    """Variables with which a worker finds the modules that this process finds, whether they are installed or not."""
    folders = [os.path.abspath(folder) for folder in sys.path if isinstance(folder, str)]
    folders.append(str(Path(__file__).parents[2]))
    return os.environ | _WORKER_VARIABLES | {"PYTHONPATH": os.pathsep.join(folders)}


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


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
