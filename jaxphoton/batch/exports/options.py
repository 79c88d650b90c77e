"""What an export is asked for, and what it did."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.options import EXISTING, IMAGE_SUFFIX, Existing, ImageSuffix
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES

_SHOWN = 20
_EXTENSION = 64  # bytes


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How texts are written.

    Attributes:
      existing: what happens to a text that is there already: keep it, replace it, or add to it. A text that already
        begins or ends with what would be added is left alone, so that a second export changes nothing.
      separator: between an existing text and what is added to it.
      extension: of sidecar files and of members in a tar: ".txt", ".caption", or ".json" for the whole record.
      shard_size: samples in one tar, where the output is a pattern like "captions-%05d.tar".
      image_suffix: of images that are packed into tars: "keep" theirs, or "jpg" for all, for which those of other
        forms are made JPEGs.
    """

    existing: Existing = "skip"
    separator: str = "\n"
    extension: str = ".txt"
    shard_size: int = 10_000
    image_suffix: ImageSuffix = "keep"

    def __post_init__(self):
        if self.existing not in EXISTING:
            raise ExportError(f"existing must be one of {', '.join(EXISTING)}, not {self.existing!r}")
        if self.image_suffix not in IMAGE_SUFFIX:
            raise ExportError(f"image_suffix must be one of {', '.join(IMAGE_SUFFIX)}, not {self.image_suffix!r}")
        if (
            not self.extension.startswith(".")
            or self.extension.endswith(".")
            or {"/", "\0"} & set(self.extension)
            or len(self.extension) > _EXTENSION
        ):
            raise ExportError(f"extension must be like .txt, not {self.extension!r}")
        if self.extension.lower() in IMAGE_SUFFIXES:
            raise ExportError(f"extension {self.extension} is that of an image")
        if self.extension == ".json" and self.existing in ("append", "prepend"):
            raise ExportError(f"existing={self.existing} is for texts; .json files are skipped or overwritten")


@dataclass(slots=True)
class ExportReport:
    """What came of an export.

    Attributes:
      written: images whose output is new or has changed.
      unchanged: images whose output was there already and stays as it is.
      kept: of those unchanged, the images whose text is another one, which `existing="skip"` keeps.
      failed: images without a result, for which nothing was written (jsonl and parquet write the failure).
      lost: images with a result whose output could not be written; each is a problem too.
      problem_count: these, and damaged lines of the journal and of tars.
      problems: the first of these, in words.
      notes: what else whoever reads the output should know.
      each_lost: called with key, path and fault of each image that is lost.
    """

    written: int = 0
    unchanged: int = 0
    kept: int = 0
    failed: int = 0
    lost: int = 0
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    each_lost: Callable[[str, str, str], None] | None = None

    def lose(self, record: Record, fault: str) -> None:
        """Counts an image whose output could not be written, and says why."""
        self.lose_key(record.key, record.path, fault)

    def lose_key(self, key: str, path: str, fault: str) -> None:
        """The same for what is known by key and path only."""
        self.lost += 1
        if self.each_lost is not None:
            self.each_lost(key, path, fault)
        self.problem(f"{key}: {fault}")

    def problem(self, text: str) -> None:
        """Counts a problem, and keeps it if it is one of the first."""
        self.problem_count += 1
        if len(self.problems) < _SHOWN:
            self.problems.append(text)

    def lines(self) -> list[str]:
        """The problems and the notes, for people."""
        more = [f"{self.problem_count:,} problems in all"] if self.problem_count > len(self.problems) else []
        return [*self.problems, *more, *self.notes]


def merge(old: str | None, new: str, options: ExportOptions) -> str | None:
    """The text that should be there, None if what is there should stay. An empty text counts as none: that is what a
    tool leaves that was killed while writing."""
    old, new, gap = (old or "").strip(), new.strip(), options.separator
    if not old:
        return new
    if options.existing == "skip" or old == new:
        return None
    if options.existing == "overwrite":
        return new
    if options.existing == "append":
        return None if old.endswith(gap + new) else old + gap + new
    return None if old.startswith(new + gap) else new + gap + old


def fault_of(error: OSError | ValueError) -> str:
    """What a file could not be written for, with its name where the error has one."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {os.fsdecode(error.filename)}" if error.filename else error.strerror
    return str(error)
