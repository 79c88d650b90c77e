"""The pictures that wait for a worker, and the threads that take them there and bring the crops back."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from jaxphoton.image.crops import Crops
from jaxphoton.image.errors import ImageError
from jaxphoton.image.prepare import Prepared
from jaxphoton.image.process import WorkerProcess
from jaxphoton.processes.frames import Message
from jaxphoton.processes.pipe import TookTooLong


@dataclass(slots=True, eq=False)
class PictureTask:
    """One picture: the path or the bytes of a file.

    Attributes:
      losses: workers that died, or took too long, while they were at it.
      false_starts: workers that were to have it and did not start.
    """

    name: str
    path: str | None
    data: bytes | None
    future: Future[Prepared] = field(default_factory=Future)
    losses: int = 0
    false_starts: int = 0

    def start(self) -> bool:
        """From here on the future cannot be cancelled; False where it was."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def fail(self, error: Exception) -> None:
        if self.start():
            self.future.set_exception(error)


class PictureQueue:
    """The tasks that no worker has yet, and how many are unfinished altogether."""

    def __init__(self, bound: int):
        # Condition's own lock may be taken twice: a finalizer may close the queue from wherever memory is collected.
        self._changed = threading.Condition()
        self._waiting: deque[PictureTask] = deque()
        self._bound = bound
        self._outstanding = self._idle = 0
        self.closed = False

    def put(self, task: PictureTask) -> None:
        """Adds a task, when fewer than the bound are unfinished."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._outstanding < self._bound)
            if self.closed:
                raise closed_error()
            self._outstanding += 1
            task.future.add_done_callback(self._finished)
            self._waiting.append(task)
            self._changed.notify_all()

    def take(self, wait: bool) -> PictureTask | None:
        """The next task; None when the queue is closed, or when not waiting and idle supervisors will have it."""
        with self._changed:
            while not self.closed:
                if wait:
                    self._idle += 1
                    self._changed.wait_for(lambda: self.closed or self._waiting)
                    self._idle -= 1
                elif len(self._waiting) <= self._idle:
                    return None
                if self._waiting and (task := self._waiting.popleft()).start():
                    return task
        return None

    def put_back(self, tasks: list[PictureTask]) -> None:
        """Tasks that were taken and have to be done again, before all others."""
        with self._changed:
            if not self.closed:
                self._waiting.extendleft(reversed(tasks))
                self._changed.notify_all()
                return
        for task in tasks:
            task.fail(closed_error())

    def close(self) -> None:
        """Fails what waits; from here on nothing is put or taken."""
        with self._changed:
            self.closed = True
            waiting, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for task in waiting:
            task.fail(closed_error())

    def _finished(self, future: Future[Prepared]) -> None:
        with self._changed:
            self._outstanding -= 1
            if future.cancelled():
                self._waiting = deque(task for task in self._waiting if task.future is not future)
            self._changed.notify_all()


class Supervisor(threading.Thread):
    """Feeds one worker and replaces it when it dies or hangs."""

    def __init__(
        self,
        number: int,
        queue: PictureQueue,
        slots: int,
        limit: float,
        settings: Message,
        environment: dict[str, str],
        prepare_here: Callable[..., Prepared],
    ):
        """A thread that is not started yet.

        Args:
          slots: pictures in the worker at once.
          limit: seconds that a picture may take in it.
          settings: the first message to a worker.
          environment: the variables it starts with.
          prepare_here: `prepare` with these settings, for what only this process can read.
        """
        # A daemon: the interpreter joins others before it runs the exit functions that close pools.
        super().__init__(name=f"jaxphoton-image-{number}", daemon=True)
        self._number, self._queue, self._slots, self._limit = number, queue, slots, limit
        self._prepare_here = prepare_here
        self._settings, self._environment = settings, environment
        self._under_way: deque[PictureTask] = deque()
        self.worker: WorkerProcess | None = None

    def run(self) -> None:
        # Workers inherit the mask: Ctrl-C does not kill them while they start either.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            try:
                self._start()
            except Exception:  # tried again, and reported, with the first picture
                self._drop()
            while not self._queue.closed:
                self._turn()
        finally:
            self._drop()
            for task in self._under_way:
                task.fail(closed_error())

    def _turn(self) -> None:
        """Sends one picture, or brings one back when there is nothing to send."""
        task = self._queue.take(wait=not self._under_way) if len(self._under_way) < self._slots else None
        try:
            if task:
                self._send(task)
            elif self._under_way:
                self._receive()
        except Exception as error:  # whatever it is, it goes on with a new worker
            self._lost(error)

    def _send(self, task: PictureTask) -> None:
        if not self._under_way and self.worker and not self.worker.alive():
            self._drop()  # it died idle: no picture's fault
        self._under_way.append(task)
        worker = self.worker or self._start()
        worker.send(task.name, task.path, task.data)

    def _receive(self) -> None:
        assert self.worker
        reply = self.worker.receive()
        task = self._under_way.popleft()
        try:
            prepared = self._prepared(task, reply, self.worker)
        except Exception as error:
            task.future.set_exception(error)
        else:
            task.future.set_result(prepared)

    def _prepared(self, task: PictureTask, reply: Message, worker: WorkerProcess) -> Prepared:
        """The picture behind an answer, or the exception."""
        if "error" in reply:
            raise RuntimeError(f"{task.name}: {reply['error']}")
        if "image_error" in reply:
            source, reason, fault = reply["image_error"]
            if reason in ("not-an-image", "unsupported") and _pillow_was_extended():
                return self._prepare_here(task.path if task.data is None else task.data, name=task.name)
            raise ImageError(source, reason, fault)
        rows, columns = reply["tiling"]
        height, width = reply["size"]
        size = self._settings["vision"]["crop_size"]
        pixels = np.empty((1 + rows * columns, size, size, 3), np.uint8)
        worker.read_pixels(pixels)
        digest = bytes.fromhex(reply["digest"])
        return Prepared(
            Crops(pixels, (rows, columns)),
            digest,
            (height, width),
            tuple(reply["notes"]),
            reply["began"],
            reply["seconds"],
            self._number,
        )

    def _lost(self, error: Exception) -> None:
        """The worker died or hangs: its oldest picture gets a second chance, those behind it were not begun."""
        ready = self.worker is not None and self.worker.ready
        ended = self._drop()  # kills it, if it hangs
        late = isinstance(error, TookTooLong)
        status = str(error) if late or not ended else ended
        first, *others = self._under_way
        self._under_way.clear()
        first.losses += ready
        first.false_starts += not ready
        if first.losses == 2 and not self._queue.closed:
            fault = status if late else f"the process that decodes it died twice ({status})"
            first.fail(ImageError(first.name, "timeout" if late else "process-died", fault))
        elif first.false_starts == 2 and not self._queue.closed:
            first.fail(RuntimeError(f"{first.name}: the image worker does not start ({status})"))
        else:
            others.insert(0, first)
        self._queue.put_back(others)

    def _start(self) -> WorkerProcess:
        self._drop()
        self.worker = worker = WorkerProcess(self._slots, self._environment, self._limit)
        if self._queue.closed:  # whoever closed it may have looked before the worker was there
            worker.kill()
        worker.greet(self._settings)
        return worker

    def _drop(self) -> str:
        """Ends the worker, if there is one; how it ended."""
        worker, self.worker = self.worker, None
        return worker.stop() if worker else ""


def closed_error() -> RuntimeError:
    return RuntimeError("the image pool is closed")


def _pillow_was_extended() -> bool:
    """Whether somebody taught the Pillow of this process formats that a worker's does not have."""
    known = ("PIL.", "pillow_heif.")  # HEIC the workers learn themselves
    return any(not factory.__module__.startswith(known) for factory, _ in list(Image.OPEN.values()))
