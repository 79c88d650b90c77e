"""`jaxphoton export`: the results of a run in another form."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TextIO

from jaxphoton.batch.options import WHOLE
from jaxphoton.cli.base import OK, SOME_FAILED, STDOUT, CommandError, say
from jaxphoton.cli.batch_options import add_export_options

if TYPE_CHECKING:
    from jaxphoton.batch.exporting import Exporter
    from jaxphoton.batch.exports import ExportOptions, ExportReport

DESCRIPTION = """\
Makes an output of the journal of a run, also of one that is still going on: .jsonl, .parquet, .json (COCO boxes), .tar
(webdataset), or a folder of text files; without --out, text files beside the images."""
EPILOG = """\
examples:
  jaxphoton export captions.jsonl.journal --out captions.parquet
  jaxphoton export captions.jsonl.journal --existing append --extension .caption
  jaxphoton export run.journal --out "captioned-%05d.tar" --input "shards-{000..099}.tar"
  jaxphoton export run.journal --out failures.jsonl --failures
  jaxphoton export run.journal --report report.html
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "export", help="make other outputs of a run's journal", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="of a run: OUT.journal")
    parser.add_argument(
        "--out", metavar="OUT", help="a file or folder, - for JSON lines to stdout (default: beside the images)"
    )
    add_export_options(parser.add_argument_group("output"))
    parser.add_argument("--failures", action="store_true", help="only the images that failed, as JSON lines")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page to look at instead: report.html")
    parser.add_argument("--input", nargs="+", metavar="INPUT", help="what the run has read (default: as it was given)")
    parser.add_argument("--shard", metavar="I/N", help="the part of the input that the run has read")


def run(args) -> int:
    from jaxphoton.batch.exporting import Exporter
    from jaxphoton.batch.exports import ExportOptions
    from jaxphoton.batch.sources import parse_shard

    if args.report and (args.out is not None or args.failures):
        raise CommandError("--report is instead of an output: give --out and --failures in a command of their own")
    options = ExportOptions(existing=args.existing, extension=args.extension, image_suffix=args.image_suffix)
    exporter = Exporter(args.journal, args.input, parse_shard(args.shard) if args.shard else WHOLE, args.flagfiles)
    form = "failures" if args.failures else args.form
    if args.report:
        exporter.report(args.report)
        return OK
    if args.out == STDOUT:
        return _print(exporter, form or "jsonl", options)
    return _told(exporter.export(args.out, form, options), sys.stdout)


def _print(exporter: Exporter, form: str, options: ExportOptions) -> int:
    """The export to standard output, by way of a file: it is written when all of it is there."""
    if form not in ("jsonl", "failures"):
        raise CommandError(f"--out {STDOUT} is standard output, which takes JSON lines and not {form}")
    with TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.jsonl"
        code = _told(exporter.export(str(lines), form, options), sys.stderr)
        sys.stdout.flush()
        with lines.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    return code


def _told(report: ExportReport, file: TextIO) -> int:
    """Says what came of an export; the exit code."""
    for line in report.lines():
        say("export", line)
    unchanged = f", {report.unchanged:,} unchanged" if report.unchanged else ""
    print(f"{report.written:,} images written{unchanged}, {report.failed:,} failed", file=file)
    return SOME_FAILED if report.problem_count else OK
