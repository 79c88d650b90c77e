"""The pictures that wait for a worker, and what takes them to one and brings the crops back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from jaxphoton.image.crops import Crops
from jaxphoton.image.errors import ImageError
from jaxphoton.image.prepare import Prepared
from jaxphoton.image.process import WorkerProcess
from jaxphoton.image.worker import READY
from jaxphoton.processes.assignments import Assignment, Assignments, WorkerLoad
from jaxphoton.processes.frames import Message
from jaxphoton.processes.supervisor import Supervisor


@dataclass(slots=True, eq=False, kw_only=True)
class PictureTask(Assignment):
    """One picture: the path or the bytes of a file."""

    path: str | None = None
    data: bytes | None = field(default=None, repr=False)

    def claim(self) -> bool:
        """From here on the future cannot be cancelled."""
        return self.future.running() or self.future.set_running_or_notify_cancel()


class ImageSupervisor(Supervisor[PictureTask, WorkerProcess]):
    """Keeps one worker, as long as there are pictures for it."""

    def __init__(
        self,
        number: int,
        work: Assignments[PictureTask],
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
        super().__init__(f"jaxphoton-image-{number}", work)
        self._number, self._slots, self._limit = number, slots, limit
        self._settings, self._environment, self._prepare_here = settings, environment, prepare_here
        self._false_starts = 0

    def start_child(self) -> WorkerProcess:
        return WorkerProcess(self._slots, self._environment, self._limit)

    def greet(self, child: WorkerProcess) -> int:
        child.greet(self._settings, READY)
        return self._slots

    def joined(self, child: WorkerProcess, load: WorkerLoad[PictureTask]) -> None:
        child.expect(lambda: self.work.given(load))  # it is silent while it has no picture

    def send(self, child: WorkerProcess, task: PictureTask) -> None:
        child.send_picture(task.name, task.path, task.data)

    def handle(self, child: WorkerProcess, load: WorkerLoad[PictureTask], message: Message) -> None:
        task = self.work.given(load)
        if task is None:
            raise ValueError("an answer that nobody asked for")
        try:
            outcome = self._prepared(task, message, child)
        except Exception as error:
            outcome = error
        self.work.finish(load, task.number, outcome)

    def failure(self, load: WorkerLoad[PictureTask] | None, status: str, task: PictureTask) -> ImageError:
        if load and load.hung:
            return ImageError(task.name, "timeout", status)
        return ImageError(task.name, "process-died", f"the process that decodes it died twice ({status})")

    def goes_on(self, load: WorkerLoad[PictureTask] | None, status: str, failures: int, again: int) -> bool:
        """The next worker starts with the next picture; pictures for which two did not start have failed."""
        self._false_starts = 0 if load else self._false_starts + 1
        if self._false_starts > 1:
            fault = f"the image worker does not start ({status})"
            self.work.fail_waiting(lambda task: RuntimeError(f"{task.name}: {fault}"))
        self.work.wait_for_work()
        return True

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


def _pillow_was_extended() -> bool:
    """Whether somebody taught the Pillow of this process formats that a worker's does not have."""
    known = ("PIL.", "pillow_heif.")  # HEIC the workers learn themselves
    return any(not factory.__module__.startswith(known) for factory, _ in list(Image.OPEN.values()))
