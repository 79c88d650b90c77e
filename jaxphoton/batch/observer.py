"""What hears of a run as it goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.summary import Tally

LOGGER = logging.getLogger("jaxphoton.batch")


@dataclass(frozen=True, slots=True)
class Beginning:
    """A run before its first image.

    Attributes:
      tally: of its images so far; it grows.
      count: how many there are, None if nobody knows; it may take long, and may be called from a thread.
      done: of those, how many were done before.
      settings: what the results are made with, as the header of a journal has them.
      journal: where they go first.
      failed: of those that were done before.
    """

    tally: Tally
    count: Callable[[], int | None]
    done: int
    settings: Mapping[str, Any]
    journal: Path | None
    failed: int = 0


class RunObserver:
    """Does nothing but log what is worth a line (logger "jaxphoton.batch", level INFO). Subclasses do more.

    What a method raises ends the run; its journal keeps what is done.
    """

    def note(self, text: str) -> None:
        """Something that whoever runs it should know, in words."""
        LOGGER.info(text)

    def begin(self, beginning: Beginning) -> None:
        """All is open; the first image is looked for."""

    def ask(self, any_left: bool) -> None:
        """The images are about to be asked about, if any are left; before the model is loaded."""

    def answer(self, compiling: float) -> None:
        """The model is ready, and took so many seconds to compile."""

    def image(self, number: int, record: Record) -> None:
        """An image is finished, the `number`-th of the input (from 0): in any order, from one thread at a time."""

    def keep(self) -> None:
        """An image is not asked about: its text is there already. From the thread that reads."""

    def stop(self) -> None:
        """A signal has asked for the end; called by its handler."""

    def end(self) -> None:
        """No image is asked about any more, however that came."""
