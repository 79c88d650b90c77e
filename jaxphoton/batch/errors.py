"""What can go wrong in a batch: faults that end a run, and entries that cannot become a picture."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

from jaxphoton.image.errors import REASONS, ImageError, Reason

EntryReason = Literal[Reason, "bad-entry", "duplicate-key"]
ENTRY_REASONS: tuple[EntryReason, ...] = (*REASONS, *get_args(Literal["bad-entry", "duplicate-key"]))

# In a list of failures: the result is in the journal, and its output could not be made.
NOT_WRITTEN = "not-written"


class BatchError(ValueError):
    """A fault the user can mend; the message names it. Nothing can go on before that."""


class SourceError(BatchError):
    """An input that does not exist, is empty, or is of a kind that cannot be read."""


class JournalError(BatchError):
    """A journal that cannot be used: not one, in use by another process, or not writable."""


class SettingsDiffer(JournalError):
    """A journal made with other settings or another model.

    Attributes:
      differences: one text for each that differs.
    """

    def __init__(self, path: str, differences: list[str]):
        super().__init__(f"{path} was made with other settings: " + "; ".join(differences))
        self.differences = differences


class ExportError(BatchError):
    """An export that cannot be made from this journal."""


class EntryError(ImageError):
    """One entry of a source that gives no image: an `ImageError` whose reason is one of `ENTRY_REASONS`."""

    def __init__(self, source: str, reason: EntryReason, fault: str):
        super().__init__(source, cast(Any, reason), fault)
