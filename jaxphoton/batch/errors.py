"""What can go wrong in a batch: faults that end a run, and entries that cannot become a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, cast, get_args

from jaxphoton.image.errors import REASONS, ImageError, Reason

EntryReason = Literal[Reason, "bad-entry", "duplicate-key"]
ENTRY_REASONS: tuple[EntryReason, ...] = (*REASONS, *get_args(Literal["bad-entry", "duplicate-key"]))

# In a list of failures: the result is in the journal, and its output could not be made.
NOT_WRITTEN = "not-written"


class BatchError(ValueError):
    """A fault the user can mend; the message names it. Nothing can go on before that."""


class OptionError(BatchError):
    """An option of a run that is none, or does not go with the others."""

    def __init__(self, template: str, **values: object):
        """
        Args:
          template: the message, as for `str.format`; each `{name}` that is none of `values` is the option of that name.
        """
        self._template, self._values = template, values
        super().__init__(self.spelled(str))

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The message with the names of options as somebody else writes them, such as "--captions-per-image"."""
        return self._template.format_map(_Spelled(self._values, spell))


class _Spelled(dict[str, object]):
    def __init__(self, values: Mapping[str, object], spell: Callable[[str], str]):
        super().__init__(values)
        self._spell = spell

    def __missing__(self, name: str) -> str:
        return self._spell(name)


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
