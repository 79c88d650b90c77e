"""What takes pictures to one image worker after the other, and brings the crops back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jaxphoton.image.blocks import new_block, read_block, write_block
from jaxphoton.image.crops import Crops
from jaxphoton.image.errors import ImageError
from jaxphoton.image.prepare import Prepared
from jaxphoton.processes.assignment import Assignment, WorkerLoad
from jaxphoton.processes.assignments import Assignments
from jaxphoton.processes.child import Program
from jaxphoton.processes.pipe import Message
from jaxphoton.processes.supervisor import Supervisor


@dataclass(slots=True, eq=False, kw_only=True)
class PictureTask(Assignment):
    """One picture: the path or the bytes of a file, and the block it was sent with."""

    path: str | None = None
    data: bytes | None = None
    block: int = -1
    claims: bool = True


class ImageSupervisor(Supervisor[PictureTask]):
    """Keeps one worker, as long as there are pictures for it. It answers them in the order in which they were sent, so
    its blocks of shared memory, one a picture, are used in turn."""

    def __init__(
        self,
        number: int,
        work: Assignments[PictureTask],
        program: Callable[[Message, list[int]], Program],
        settings: Message,
        prepare_here: Callable[..., Prepared],
    ):
        """A thread that is not started yet.

        Args:
          program: what a worker runs, of its settings and the blocks it inherits.
          settings: see `worker`; its "room" counts the pictures in the worker at once.
          prepare_here: `prepare` with these settings, for what only this process can read.
        """
        self._blocks = [new_block() for _ in range(settings["room"])]
        super().__init__(f"jaxphoton-image-{number}", work, program(settings, self._blocks))
        self._number, self._prepare_here = number, prepare_here
        self._sent = self._false_starts = 0

    def run(self) -> None:
        try:
            super().run()
        finally:
            while self._blocks:
                os.close(self._blocks.pop())

    def order(self, task: PictureTask) -> tuple[Message, None]:
        task.block = self._blocks[self._sent % len(self._blocks)]
        self._sent += 1
        if task.data is not None:
            write_block(task.block, memoryview(task.data))
        length = len(task.data or b"")
        return {"name": task.name, "path": task.path, "length": length, "block": task.block}, None

    def outcome(self, task: PictureTask, message: Message) -> Prepared:
        if "error" in message:
            raise RuntimeError(f"{task.name}: {message['error']}")
        if "image_error" in message:
            source, reason, fault = message["image_error"]
            if reason in ("not-an-image", "unsupported") and _pillow_was_extended():
                return self._prepare_here(task.path if task.data is None else task.data, name=task.name)
            raise ImageError(source, reason, fault)
        rows, columns = message["tiling"]
        pixels = np.empty(message["shape"], np.uint8)
        read_block(task.block, pixels.data.cast("B"))
        height, width = message["size"]
        return Prepared(
            Crops(pixels, (rows, columns)),
            bytes.fromhex(message["digest"]),
            (height, width),
            tuple(message["notes"]),
            message["began"],
            message["seconds"],
            self._number,
        )

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
        self.work.wait_for(lambda: self.work.waits)
        return True


def _pillow_was_extended() -> bool:
    """Whether somebody taught the Pillow of this process formats that a worker's does not have."""
    known = ("PIL.", "pillow_heif.")  # HEIC the workers learn themselves
    return any(not factory.__module__.startswith(known) for factory, _ in list(Image.OPEN.values()))
