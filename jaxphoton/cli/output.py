"""Where the results of a run go: its journal, its lines, its exports."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from jaxphoton.cli.base import CommandError
from jaxphoton.cli.readable import readable

if TYPE_CHECKING:
    from jaxphoton.batch.journal import Journal
    from jaxphoton.batch.progress import Progress
    from jaxphoton.batch.record import Record
    from jaxphoton.batch.sources import Source
    from jaxphoton.batch.summary import Tally
    from jaxphoton.batch.tasks import Plan


def journal_path(args: argparse.Namespace) -> Path | None:
    """The journal of a run; None for one that only prints."""
    if args.journal is not None or args.out is None:
        return args.journal
    return Path(args.out.rstrip("/") + ".journal")


def check_output(args: argparse.Namespace, plan: Plan) -> None:
    """Finds out before the work whether its output can be made.

    Raises:
      CommandError, BatchError: it cannot.
    """
    from jaxphoton.batch.exports import form_of

    if args.dedupe != "none" and plan.varies:
        raise CommandError("--dedupe is for images that are all asked the same: texts with variables are not")
    if args.journal is None and args.out is None:
        for name in ("dedupe", "report", "retry_failed", "restart"):
            if getattr(args, name) not in (None, False, "none"):
                raise CommandError(f"--{name.replace('_', '-')} needs a journal: give --out or --journal")
        return
    for name in ("out", "journal", "report"):
        path = getattr(args, name)
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise CommandError(f"--{name} {path}: no folder {Path(path).absolute().parent}")
    if args.out is None:
        return
    form, kinds = args.form or form_of(args.out), {task.kind for task in plan.tasks}
    if os.path.isfile(args.out) and any(os.path.exists(i) and os.path.samefile(i, args.out) for i in args.input):
        raise CommandError(f"--out {args.out} is the input: name another place")
    if form in ("coco", "yolo") and "detect" not in kinds:
        raise CommandError(f"--out {args.out}: {form} is for boxes, and nothing is detected")
    if form == "sidecar" and args.extension != ".json" and not kinds & {"caption", "query"}:
        raise CommandError(f"--out {args.out}: {args.extension} files are for texts: give --extension .json")


class Lines:
    """The sink of a run: journal, tally, progress, and a line for each image.

    Without a journal the lines are JSON, and in the order of the images.
    """

    def __init__(self, journal: Journal | None, tally: Tally, progress: Progress, quiet: bool, plan: Plan):
        from jaxphoton.batch.exports.lines import LineForm

        self._form = LineForm(plan.description())
        self._journal, self._tally, self._progress, self._quiet = journal, tally, progress, quiet
        self._early: dict[int, Record] = {}
        self._next = 0

    def __call__(self, number: int, record: Record) -> int | None:
        offset = None
        if self._journal is not None:
            offset = self._journal.write(record)
            if not self._quiet:
                what = readable(record.results) if record.status == "ok" else f"ERROR {record.fault}"
                _write(sys.stdout, f"{record.key}: {what}")
        else:
            self._early[number] = record
            self._print_due()
        self._tally.add(record)
        self._progress.update()
        return offset

    def _print_due(self) -> None:
        while (record := self._early.pop(self._next, None)) is not None:
            self._next += 1
            _write(sys.stdout, self._form.text(record))


def write_exports(args: argparse.Namespace, journal: Path, source: Source, failed: bool) -> None:
    """Makes the output and the list of failures of a journal.

    Args:
      failed: whether some image has.

    Raises:
      BatchError: it cannot be written.
    """
    from jaxphoton.batch.exports import ExportOptions, export

    if args.out is not None:
        options = ExportOptions(existing=args.existing, extension=args.extension)
        show(args.command, export(journal, args.out, form=args.form, options=options, source=source))
    base = Path(args.out or journal)
    failures = base.with_name(f"{base.stem.partition('%')[0].rstrip('-_') or 'run'}.failures.jsonl")
    if failed:
        export(journal, failures, form="failures")
        print(f"jaxphoton {args.command}: the failures are in {failures}", file=sys.stderr)
    else:
        failures.unlink(missing_ok=True)


def show(command: str, report: Any) -> None:
    """Says what could not be exported."""
    for problem in report.problems:
        print(f"jaxphoton {command}: {problem}", file=sys.stderr)
    if report.problem_count > len(report.problems):
        print(f"jaxphoton {command}: {report.problem_count:,} problems in all", file=sys.stderr)


def _write(file: TextIO, line: str) -> None:
    from tqdm import tqdm

    with tqdm.external_write_mode(file=file):  # keeps the bar off the line when both go to the terminal
        file.write(line + "\n")
        file.flush()
