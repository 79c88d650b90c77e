"""Where the results of a run go: its journal, its lines, its exports."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TextIO

from jaxphoton.cli.base import CommandError
from jaxphoton.cli.readable import readable
from jaxphoton.messages import to_stderr

if TYPE_CHECKING:
    from jaxphoton.batch.exports import ExportOptions, ExportReport
    from jaxphoton.batch.exports.failures import FailureList
    from jaxphoton.batch.journal import Journal
    from jaxphoton.batch.journal.record import Record
    from jaxphoton.batch.places import Places
    from jaxphoton.batch.questions import Questions
    from jaxphoton.batch.sources import Source
    from jaxphoton.batch.summary import Tally
    from jaxphoton.cli.progress import Progress

STDOUT = "-"


def places_of(args: argparse.Namespace, shard: tuple[int, int]) -> Places:
    """Where the files of a run go.

    Raises:
      CommandError, BatchError: an option names no such place.
    """
    from jaxphoton.batch.exports import form_of
    from jaxphoton.batch.places import Places, journal_of

    out = None if args.out == STDOUT else args.out
    if args.out == STDOUT and args.form not in (None, "jsonl"):
        raise CommandError(f"--out {STDOUT} is standard output, which takes JSON lines and not {args.form}")
    form = None if out is None else args.form or form_of(out)
    journal = args.journal
    if journal is None and out is not None:
        journal = journal_of(out, form or "", shard)
    if journal is None:
        for name in ("dedupe", "report", "retry_failed", "restart"):
            if getattr(args, name) not in (None, False, "none"):
                raise CommandError(f"--{name.replace('_', '-')} needs a journal: give --out or --journal")
    return Places(journal, out, form, args.report, args.trace, shard)


def files_read(args: argparse.Namespace) -> list[str]:
    """The files that a run reads, of those that were named."""
    from jaxphoton.batch.places import input_files

    prompt = getattr(args, "prompt_file", None)
    return [*input_files(args.input), *([] if prompt is None else [str(prompt)]), *args.flagfiles]


def check_output(args: argparse.Namespace, questions: Questions, places: Places, source: Source) -> None:
    """Finds out before the work whether its output can be made.

    Raises:
      CommandError, BatchError: it cannot.
    """
    if args.dedupe != "none" and questions.varies:
        raise CommandError("--dedupe is for images that are all asked the same: texts with variables are not")
    places.check(files_read(args), source)
    kinds = {question.kind for question in questions.each}
    if places.form in ("coco", "yolo") and "detect" not in kinds:
        raise CommandError(f"--out {args.out}: {places.form} is for boxes, and nothing is detected")
    if places.form == "yolo" and questions.classes_vary and places.shard[1] > 1:
        # No shard knows what those of the others ask for.
        raise CommandError("classes are numbered by what all images ask for: with variables, yolo is for a whole run")
    texts = kinds & {"caption", "query"}
    if places.form in ("sidecar", "webdataset") and args.extension != ".json" and not texts:
        raise CommandError(f"--out {args.out}: {args.extension} files are for texts: give --extension .json")


class Lines:
    """The sink of a run: journal, tally, progress, and a line for each image.

    Args:
      json_lines: print JSON, in the order of the images; else a line to read for each, in the order in which they
        finish, or with `quiet` none.
    """

    def __init__(
        self,
        journal: Journal | None,
        tally: Tally,
        progress: Progress,
        json_lines: bool,
        quiet: bool,
        questions: Questions,
    ):
        from jaxphoton.batch.exports.lines import LineForm

        self._form = LineForm(questions.description())
        self._journal, self._tally, self._progress = journal, tally, progress
        self._json, self._quiet = json_lines, quiet
        self._early: dict[int, Record] = {}
        self._next = 0

    def __call__(self, number: int, record: Record) -> int | None:
        offset = None
        if self._journal is not None:
            offset = self._journal.write(record)
        if self._json:
            self._early[number] = record
            self._print_due()
        elif not self._quiet:
            what = readable(record.results) if record.status == "ok" else f"ERROR {record.fault}"
            _write(sys.stdout, f"{record.key}: {what}")
        self._tally.add(record)
        self._progress.update()
        return offset

    def _print_due(self) -> None:
        while (record := self._early.pop(self._next, None)) is not None:
            self._next += 1
            _write(sys.stdout, self._form.text(record))


def write_outputs(
    args: argparse.Namespace, places: Places, options: ExportOptions, source: Source, figures: Mapping[str, Any]
) -> ExportReport:
    """Makes the output, the list of failures and the page of a run.

    Args:
      source: what was read.
      figures: of the run, for the page.

    Returns:
      what came of the output.

    Raises:
      BatchError: it cannot be written; the list and the page are made nevertheless.
    """
    from jaxphoton.batch.exports import ExportReport, export
    from jaxphoton.batch.exports.atomic import keeping
    from jaxphoton.batch.exports.failures import FailureList

    assert places.journal is not None and places.failures is not None
    report = ExportReport()
    with FailureList(places.failures) as failures, ExitStack() as last:
        last.callback(_write_page, args, places, source, figures)
        failures.add_failed(places.journal)
        last.callback(_write_failures, args, failures)
        if places.out is not None:
            with keeping([*places.others(places.one_file), *files_read(args)]):
                report = export(
                    places.journal,
                    places.out,
                    form=places.form,
                    options=options,
                    source=source,
                    shard=places.shard,
                    each_lost=failures.add_lost,
                )
            show(args.command, report)
    return report


def _write_failures(args: argparse.Namespace, failures: FailureList) -> None:
    try:
        failures.write()
    except OSError as error:
        say(args.command, f"the list of failures {failures.path} cannot be written: {error.strerror or error}")
        return
    if failures.count:
        say(args.command, f"the failures are in {failures.path}")


def _write_page(args: argparse.Namespace, places: Places, source: Source, figures: Mapping[str, Any]) -> None:
    from jaxphoton.batch.exports.atomic import keeping
    from jaxphoton.batch.report import write_report
    from jaxphoton.batch.sources import Selection

    if places.report is None or places.journal is None:
        return
    # The page counts images and tokens itself, those of earlier runs too.
    summary = {name: value for name, value in figures.items() if name not in ("images", "failed", "tokens")}
    part = Selection(places.shard).part(source)[0]
    with keeping([*places.others(places.report), *files_read(args)]):
        write_report(places.journal, places.report, source=part, summary=summary)


def show(command: str, report: ExportReport) -> None:
    """Says what could not be exported, and what else there is to say."""
    for problem in report.problems:
        say(command, problem)
    if report.problem_count > len(report.problems):
        say(command, f"{report.problem_count:,} problems in all")
    for note in report.notes:
        say(command, note)


def say(command: str, text: str) -> None:
    """A line for people."""
    to_stderr(f"jaxphoton {command}: {text}")


def _write(file: TextIO, line: str) -> None:
    from tqdm import tqdm

    with tqdm.external_write_mode(file=file):  # keeps the bar off the line when both go to the terminal
        file.write(line + "\n")
        file.flush()
