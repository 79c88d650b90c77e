"""The end of a run: its output, the list of its failures and its page, made of the journal."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from jaxphoton.batch.exports import ExportReport, export
from jaxphoton.batch.exports.atomic import keeping
from jaxphoton.batch.exports.failures import FailureList
from jaxphoton.batch.observer import RunObserver
from jaxphoton.batch.report import write_report
from jaxphoton.batch.sources import Selection
from jaxphoton.batch.work import Work


def write_outputs(work: Work, figures: Mapping[str, Any], observer: RunObserver) -> ExportReport:
    """Makes the output, the list of failures and the page of a run that has a journal.

    Args:
      figures: of the run, for the page.

    Returns:
      what came of the output.

    Raises:
      BatchError: it cannot be written; the list and the page are made nevertheless.
    """
    places = work.places
    assert places.journal is not None and places.failures is not None
    report = ExportReport()
    with FailureList(places.failures) as failures, ExitStack() as last:
        last.callback(_write_page, work, figures)
        failures.add_failed(places.journal)
        last.callback(_write_failures, failures, observer)
        if places.out is not None:
            with keeping([*places.others(places.one_file), *work.files_read]):
                report = export(
                    places.journal,
                    places.out,
                    form=places.form,
                    options=work.exports,
                    source=work.source,
                    shard=places.shard,
                    each_lost=failures.add_lost,
                )
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
    # The page counts images and tokens itself, those of earlier runs too.
    summary = {name: value for name, value in figures.items() if name not in ("images", "failed", "tokens")}
    part = Selection(places.shard).part(work.source)[0]
    with keeping([*places.others(places.report), *work.files_read]):
        write_report(places.journal, places.report, source=part, summary=summary)
