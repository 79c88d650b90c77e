"""The end of a run: its output, the list of its failures and its page, made of the journal."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxphoton.batch.errors import NOT_WRITTEN
from jaxphoton.batch.exports import ExportReport
from jaxphoton.batch.exports.atomic import keeping, replacing
from jaxphoton.batch.exports.lines import failure, json_bytes
from jaxphoton.batch.exports.run import write_export
from jaxphoton.batch.journal import Journal, JournalReader
from jaxphoton.batch.observer import RunObserver
from jaxphoton.batch.report import write_report
from jaxphoton.batch.sources import Selection
from jaxphoton.batch.work import Work

_IN_MEMORY = 1 << 20


def write_outputs(work: Work, journal: Journal, figures: Mapping[str, Any], observer: RunObserver) -> ExportReport:
    """Makes the output, the list of failures and the page of a run that has a journal.

    Args:
      figures: of the run, for the page.

    Returns:
      what came of the output.

    Raises:
      BatchError: it cannot be written; the list and the page are made nevertheless.
    """
    places = work.places
    assert places.failures is not None
    report = ExportReport()
    with journal.reader() as reader, FailureList(places.failures) as failures, ExitStack() as last:
        last.callback(_write_page, work, figures)
        if journal.counts["failed"]:
            failures.add_failed(reader)
        last.callback(_write_failures, failures, observer)
        if places.out is not None:
            assert places.form is not None
            report.each_lost = failures.add_lost
            with keeping([*places.others(places.one_file), *work.files_read]):
                write_export(reader, places.out, places.form, work.exports, report, work.source, places.shard)
            for line in report.lines():
                observer.note(line)
    return report


def _write_failures(failures: FailureList, observer: RunObserver) -> None:
    try:
        failures.write()
    except OSError as error:
        observer.note(f"the list of failures {failures.path} cannot be written: {error.strerror or error}")
        return
    if failures.count:
        observer.note(f"the failures are in {failures.path}")


def _write_page(work: Work, figures: Mapping[str, Any]) -> None:
    places = work.places
    if places.report is None or places.journal is None:
        return
    # The page counts these itself, those of earlier runs too.
    counted = ("images", "failed", "tokens", "asked_again", "mended")
    summary = {name: value for name, value in figures.items() if name not in counted}
    part = Selection(places.shard).part(work.source)[0]
    with keeping([*places.others(places.report), *work.files_read]):
        write_report(places.journal, places.report, source=part, summary=summary)


class FailureList:
    """Collects failures, and makes the list of them: JSON lines with key, error, reason and path. A context manager.

    Attributes:
      path: of the list. Where nothing has failed there is none: one that an earlier run of the journal left is removed.
      count: of its lines.
    """

    def __init__(self, path: Path):
        self.path, self.count = path, 0
        # Not in its place yet: while an output is written, the disk may be full.
        self._lines = tempfile.SpooledTemporaryFile(_IN_MEMORY)

    def add_failed(self, journal: JournalReader) -> None:
        """Adds the images that have failed by a journal."""
        for record in journal.records():
            if record.status == "failed":
                self._add(failure(record))

    def add_lost(self, key: str, path: str, fault: str) -> None:
        """Adds an image whose result is in the journal, and could not be written."""
        self._add({"key": key, "error": fault, "reason": NOT_WRITTEN, "path": path})

    def write(self) -> None:
        """Makes the list.

        Raises:
          OSError: it cannot be written, or the old one not removed.
        """
        if not self.count:
            if os.path.lexists(self.path):
                self.path.unlink()
            return
        self._lines.seek(0)
        with replacing(self.path) as file:
            shutil.copyfileobj(self._lines, file)

    def __enter__(self) -> FailureList:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def _add(self, line: dict[str, Any]) -> None:
        self._lines.write(json_bytes(line) + b"\n")
        self.count += 1
