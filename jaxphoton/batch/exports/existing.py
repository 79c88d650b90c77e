"""Texts that are there before a run, and that it keeps: their images need not be asked about."""

from __future__ import annotations

from pathlib import Path

from jaxphoton.batch.exports import ExportOptions
from jaxphoton.batch.exports.members import answers_field
from jaxphoton.batch.exports.names import relative_path
from jaxphoton.batch.exports.sidecar import has_text
from jaxphoton.batch.sources import Item
from jaxphoton.requests.skills import SKILLS


class ExistingTexts:
    """Finds the images of which all that would be asked is in a text that `existing="skip"` keeps.

    In a folder of texts these are the images whose file has a text; in a copied tar the samples whose member has one,
    or whose `.json` member has the answers. Of what is not written as a text (boxes beside captions) the journal
    is the only place, so that nothing is left out then. All other forms are made anew from the journal.

    Args:
      out, form: the output; None for none.
      kinds: of the tasks.

    Attributes:
      kept: images found.
    """

    def __init__(self, out: str | None, form: str | None, options: ExportOptions, kinds: set[str]):
        self.kept = 0
        self._out, self._extension = Path(out or "."), options.extension
        self._answers = sorted(answers_field(kind) for kind in kinds)
        wanted = options.existing == "skip" and (
            options.extension == ".json" or all(SKILLS[kind].writes for kind in kinds)
        )
        self._by_key = wanted and form == "sidecar"
        self._by_member = wanted and form == "webdataset"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a tar that `has` looks at."""
        if not self._by_member:
            return ()
        return tuple(self._answers) if self._extension == ".json" else (self._extension[1:],)

    def has_key(self, key: str) -> bool:
        """Whether the image of a key has a text, by what is in the output; counts it."""
        # A folder that cannot be read is a key too, with "/" at its end.
        found = self._by_key and not key.endswith("/") and has_text(self._out / relative_path(key, self._extension))
        self.kept += found
        return found

    def has(self, item: Item) -> bool:
        """Whether an image came with its text; counts it."""
        if not (self._by_member and item.members):
            return False
        if self._extension == ".json":
            found = all(item.columns.get(name) not in (None, "", []) for name in self._answers)
        else:
            name = self._extension[1:]
            found = name in item.members and bool(str(item.columns.get(name, "")).strip())
        self.kept += found
        return found
