"""What an export is asked for, and what it did."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES

Existing = Literal["skip", "overwrite", "append", "prepend"]
EXISTING: tuple[Existing, ...] = get_args(Existing)
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How texts are written.

    Attributes:
      existing: what happens to a text that is there already: keep it, replace it, or add to it. A text that already
        begins or ends with what would be added is left alone, so that a second export changes nothing.
      separator: between an existing text and what is added to it.
      extension: of sidecar files and of members in a tar: ".txt", ".caption", or ".json" for the whole record.
      shard_size: samples in one tar, where the output is a pattern like "captions-%05d.tar".
    """

    existing: Existing = "skip"
    separator: str = "\n"
    extension: str = ".txt"
    shard_size: int = 10_000

    def __post_init__(self):
        if self.existing not in EXISTING:
            raise ExportError(f"existing must be one of {', '.join(EXISTING)}, not {self.existing!r}")
        if not self.extension.startswith(".") or "/" in self.extension:
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
      failed: images without a result, for which nothing was written (jsonl and parquet write the failure).
      problem_count: images whose output could not be written, and damaged lines of the journal.
      problems: the first of these, in words.
    """

    written: int = 0
    unchanged: int = 0
    failed: int = 0
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Counts a problem, and keeps it if it is one of the first."""
        self.problem_count += 1
        if len(self.problems) < _SHOWN:
            self.problems.append(text)


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


def relative_path(key: str, extension: str) -> str:
    """Where the output of a key goes below a folder: its path, never outside, with `extension` for an image's."""
    parts = re.sub(r"^[A-Za-z0-9+.-]+://", "", key).split("/")
    path = "/".join("_" if part == ".." else part for part in parts if part not in ("", "."))
    return with_extension(path or "_", extension)


def with_extension(path: str, extension: str) -> str:
    """`path` with the suffix of an image replaced, any other kept."""
    stem, suffix = posixpath.splitext(path)
    return (stem if suffix.lower() in IMAGE_SUFFIXES else path) + extension
