"""Other outputs of a run that is over, or still going on, made of its journal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jaxphoton.batch.errors import JournalError, SourceError
from jaxphoton.batch.exports import ExportOptions, ExportReport, export, form_of
from jaxphoton.batch.exports.atomic import keeping
from jaxphoton.batch.journal import JournalReader
from jaxphoton.batch.options import WHOLE
from jaxphoton.batch.places import Places, input_files
from jaxphoton.batch.report import write_report
from jaxphoton.batch.sources import Selection, Source, SourceOptions, open_source

_DEFAULT = ExportOptions()


class Exporter:
    """Makes outputs of a journal, and replaces neither it nor what its run has read.

    Args:
      inputs: what the run has read, by default as its journal says.
      shard: (index, count), the part of the input that the run has read.
      keep: more files that no output may replace.

    Raises:
      JournalError: the journal cannot be read, or is not one of images.
      SourceError: the shard is none.
    """

    def __init__(
        self,
        journal: str | os.PathLike[str],
        inputs: Sequence[str] | None = None,
        shard: tuple[int, int] = WHOLE,
        keep: Sequence[str] = (),
    ):
        self._journal, self._selection = journal, Selection(shard)
        with JournalReader(journal) as reader:
            settings = reader.header.settings
        if "requests" in settings:
            raise JournalError(f"{journal} is of requests, not of images: the same run-batch makes their outputs")
        self._inputs, self._columns = inputs or settings.get("input", []), settings.get("columns", {})
        self._read = [os.fspath(journal), *keep]
        try:
            self._read += input_files(self._inputs)
        except SourceError:  # they are gone
            pass

    def export(self, out: str | None, form: str | None = None, options: ExportOptions = _DEFAULT) -> ExportReport:
        """The same as `exports.export`, with the images where the form needs them.

        Raises:
          BatchError: it cannot be made.
        """
        form = form or form_of(out)
        source = self._source() if form == "webdataset" else self._source_if_there() if form == "coco" else None
        places = Places(out=out, form=form, shard=self._selection.shard)
        places.check(self._read, source)
        with keeping([*places.others(places.one_file), *self._read]):
            return export(self._journal, out, form=form, options=options, source=source, shard=places.shard)

    def report(self, page: Path) -> None:
        """Writes a page to look at.

        Raises:
          BatchError: it cannot be made.
        """
        places = Places(report=page)
        places.check(self._read)
        source = self._selection.part(self._source())[0]
        with keeping([*places.others(page), *self._read]):
            write_report(self._journal, page, source=source)

    def _source(self) -> Source:
        columns = self._columns
        exclude = tuple(columns.get("exclude", ()))
        options = SourceOptions(columns.get("image"), columns.get("key"), root=columns.get("root"), exclude=exclude)
        return open_source(self._inputs, options)

    def _source_if_there(self) -> Source | None:
        """For the ids of a COCO file, which the images may have been moved away from."""
        try:
            return self._source()
        except SourceError:
            return None
