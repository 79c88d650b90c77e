"""Worker processes that decode and crop pictures ahead of the engine's loop, a bounded number at a time.

A supervisor, a thread that mostly waits, feeds each (see `jaxphoton.processes`).
"""

from __future__ import annotations

import atexit
import functools
import os
import weakref
from concurrent.futures import Future
from typing import Any

from jaxphoton.image.crops import Pictures, told
from jaxphoton.image.decode import check_rules
from jaxphoton.image.prepare import MAX_PIXELS, Prepared, prepare
from jaxphoton.image.supervisor import ImageSupervisor, PictureTask
from jaxphoton.image.ways import Resize, check_resize
from jaxphoton.image.worker import READY
from jaxphoton.processes.assignments import Assignments
from jaxphoton.processes.child import Program, child_environment
from jaxphoton.processes.pipe import Message
from jaxphoton.processes.supervisor import ProcessPool

CLOSE_S = 5.0
TIMEOUT_S = 60.0
# A disk that hangs can hold a killed process for ever.
END_S = 2.0

# Of the environment of a worker.
VARIABLES = {
    # Workers multiply no matrices: no threads for it.
    "OPENBLAS_NUM_THREADS": "1",
    # glibc gives memory back after every picture and faults it in again for the next: a fifth of a small one's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),  # a photo of 12 megapixels needs 80 MiB on its way
    # Large pages where the system has them: a tenth less time on memory that is walked through from end to end.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

# These name other files in a worker than here.
_OWN_FILES = ("/dev/std", "/dev/fd/", "/dev/tty", "/proc/self/", "/proc/thread-self/")


class ImagePool:
    """Prepares pictures in worker processes: `submit` one, wait for its future.

    A worker that dies, or is at one picture for longer than `timeout`, is replaced and its picture tried once more; a
    second time fails that picture alone, with an ImageError ("process-died" or "timeout"). Close the pool (or use
    `with`); dropping it, and the end of the interpreter, stop it too.
    """

    def __init__(
        self,
        pictures: Pictures,
        workers: int,
        *,
        max_pixels: int = MAX_PIXELS,
        background: tuple[int, int, int] = (255, 255, 255),
        allow_truncated: bool = False,
        fast: bool = False,
        resize: Resize = "exact",
        timeout: float = TIMEOUT_S,
        slots: int = 2,
        bound: int | None = None,
    ):
        """Starts the workers, without waiting for them.

        Args:
          pictures, max_pixels, background, allow_truncated, fast, resize: as in `prepare`.
          workers: processes.
          timeout: seconds that a worker may be at one picture; waiting for its turn does not count, nor does time in
            which this process is stopped as well.
          slots: pictures given to a worker at once; with 2, the next is there when it has finished one.
          bound: futures outstanding at most; by default twice what the workers take at once.
        """
        bound = 2 * workers * slots if bound is None else bound
        if min(workers, slots, bound) < 1:
            raise ValueError("workers, slots and bound must be at least 1")
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0, not {timeout}")
        check_rules(max_pixels, background)  # now, and not with the first picture
        rules = {
            "max_pixels": int(max_pixels),
            "background": background,
            "allow_truncated": bool(allow_truncated),
            "fast": bool(fast),
            "resize": check_resize(resize),
        }
        settings = {"pictures": told(pictures), "rules": rules, "room": slots}
        environment = child_environment() | VARIABLES  # once: others may be changing it when a worker is replaced

        def program(settings: Message, blocks: list[int]) -> Program:
            command = ("-m", "jaxphoton.image.worker")
            return Program(command, environment, READY, settings, timeout, end_s=END_S, inherited=blocks)

        self._prepare = functools.partial(prepare, pictures=pictures, **rules)
        self._work: Assignments[PictureTask] = Assignments(workers, in_order=True, bound=bound)
        self._processes = ProcessPool(
            self._work,
            [ImageSupervisor(number, self._work, program, settings, self._prepare) for number in range(workers)],
        )
        self._stop = weakref.finalize(self, self._processes.end, _closed_error())
        self._stop.atexit = False  # _close_all does more, and not in a fork
        _open_pools.add(self)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers, without those that are being replaced."""
        return self._processes.pids

    def submit(self, source: Any, *, name: str | None = None) -> Future[Prepared]:
        """Hands over one picture; blocks while `bound` futures are outstanding.

        Paths and bytes go to the workers. Anything else that `prepare` takes is prepared by the calling thread
        before this returns: it may be changed or closed afterwards, and it holds no place in the bound.

        Args:
          source: as in `prepare`; a file named by a path is opened later.
          name: the name shown in errors; by default the path.
        Returns:
          A future of what `prepare` returns or raises. It can be cancelled until a worker has it.

        Raises:
          RuntimeError: the pool is closed; futures of a pool closed early raise it too.
        """
        path, data = _for_worker(source)
        if path is None and data is None:
            return self._submit_here(source, name)
        task = PictureTask(name=name or ("<bytes>" if path is None else os.fsdecode(source)), path=path, data=data)
        self._work.put(task)
        return task.future

    def _submit_here(self, source: Any, name: str | None) -> Future[Prepared]:
        if self._work.fault:
            raise _closed_error()
        future: Future[Prepared] = Future()
        try:
            future.set_result(self._prepare(source, name=name))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Stops the workers, within `CLOSE_S` seconds; unfinished futures raise RuntimeError."""
        self._stop.detach()
        self._processes.end(_closed_error(), CLOSE_S)

    def __enter__(self) -> ImagePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _for_worker(source: Any) -> tuple[str | None, bytes | None]:
    """The path or the bytes that a worker can use, neither for what only this process can read."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return None, bytes(source)
    if not isinstance(source, (str, os.PathLike)):
        return None, None
    path = os.fsdecode(source)
    if path and not os.path.isabs(path):
        try:
            # Not abspath: it would take ".." back out of a link to elsewhere.
            path = os.path.join(os.getcwd(), path)
        except OSError:
            return None, None
    return (None, None) if path.startswith(_OWN_FILES) else (path, None)


def _closed_error() -> RuntimeError:
    return RuntimeError("the image pool is closed")


_open_pools: weakref.WeakSet[ImagePool] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_open_pools):
        pool.close()


# A fork has neither our threads nor a right to our workers.
os.register_at_fork(after_in_child=_open_pools.clear)
