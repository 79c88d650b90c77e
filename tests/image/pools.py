"""What the tests of the image pool share."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxphoton.image.errors import ImageError
from jaxphoton.image.pool import ImagePool
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.moondream.config import VisionConfig
from jaxphoton.models.moondream.pictures import MoondreamPictures
from tests.image.files import photo, saved

PICTURES = MoondreamPictures(VisionConfig(crop_size=56, overlap_margin=1))
PICTURE = Image.fromarray(photo(120, 90))
PNG = saved(PICTURE, "PNG")
S = 120  # how long anything may take on a busy machine

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")


def until(condition, what: str):
    deadline = time.monotonic() + S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)
    return value


def same(one: Prepared, other: Prepared) -> None:
    np.testing.assert_array_equal(one.crops.pixels, other.crops.pixels)
    assert one.crops.pixels.dtype == np.uint8 and one.crops.pixels.flags.writeable
    assert (one.crops.tiling, one.digest, one.size, one.notes) == (
        other.crops.tiling,
        other.digest,
        other.size,
        other.notes,
    )


def failure(future: Future) -> ImageError:
    """Why a picture failed; as it must, in time."""
    error = future.exception(S)
    assert isinstance(error, ImageError)
    return error


def running(pid: int) -> bool:
    """Neither gone nor waiting to be reaped."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def traces() -> tuple[list[str], list[str], set[str], str]:
    """Open files, threads, files in shared memory, children (dead ones included)."""
    descriptors = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            descriptors.append(f"{entry} {os.readlink(f'/proc/self/fd/{entry}')}")
    threads = [thread.name for thread in threading.enumerate() if "image" in thread.name]
    shared = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        children = "some"
    except ChildProcessError:
        children = "none"
    return sorted(descriptors), threads, {name for name in shared if "jaxphoton" in name}, children


class Gate:
    """A named pipe: whoever decodes it is stuck until `open`, which may give it a picture."""

    def __init__(self, path: Path):
        os.mkfifo(path)
        self.path = path
        self._writers: list[int] = []

    def entered(self) -> None:
        """Waits until a worker is stuck in it."""

        def writer():
            # Fails while nobody reads.
            with contextlib.suppress(OSError):
                return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)

        self._writers.append(until(writer, f"a worker reads {self.path}"))

    def open(self, data: bytes = b"") -> None:
        if data:
            os.set_blocking(self._writers[-1], True)
            assert os.write(self._writers[-1], data) == len(data)
        while self._writers:
            os.close(self._writers.pop())

    def kill_inside(self, pool: ImagePool) -> None:
        """Kills the pool's only worker while it is stuck, and waits until the next is."""
        (pid,) = pool.worker_pids
        os.kill(pid, signal.SIGKILL)
        # The pid changes after the old worker was reaped, so that who reads now is the new one.
        until(lambda: pool.worker_pids not in ([], [pid]), "a new worker")
        self.entered()
