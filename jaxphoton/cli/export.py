"""`jaxphoton export`: the results of a run in another form."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxphoton.cli.base import OK, SOME_FAILED, CommandError
from jaxphoton.cli.batch_options import add_export_options
from jaxphoton.cli.output import STDOUT, show

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
    from jaxphoton.batch.errors import BatchError

    try:
        if args.report:
            if args.out is not None or args.failures:
                raise CommandError(
                    "--report is instead of an output: give --out and --failures in a command of their own"
                )
            return _report(args)
        if args.out == STDOUT:
            return _print(args)
        return _export(args, args.out)
    except BatchError as error:
        raise CommandError(str(error)) from error


def _report(args) -> int:
    from jaxphoton.batch.exports.atomic import keeping
    from jaxphoton.batch.places import Places
    from jaxphoton.batch.report import write_report
    from jaxphoton.batch.sources import Selection

    places = Places(report=args.report)
    places.check(_read(args))
    source = Selection(_shard(args)).part(_source(args))[0]
    with keeping([*places.others(args.report), *_read(args)]):
        write_report(args.journal, args.report, source=source)
    return OK


def _print(args) -> int:
    """The export to standard output, by way of a file: it is written when all of it is there."""
    form = "failures" if args.failures else args.form or "jsonl"
    if form not in ("jsonl", "failures"):
        raise CommandError(f"--out {STDOUT} is standard output, which takes JSON lines and not {form}")
    with TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.jsonl"
        code = _export(args, str(lines), form)
        sys.stdout.flush()
        with lines.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    return code


def _export(args, out: str | None, form: str | None = None) -> int:
    from jaxphoton.batch.exports import ExportOptions, export, form_of
    from jaxphoton.batch.exports.atomic import keeping
    from jaxphoton.batch.places import Places

    form = form or ("failures" if args.failures else args.form or form_of(out))
    options = ExportOptions(existing=args.existing, extension=args.extension, image_suffix=args.image_suffix)
    source = _source(args) if form == "webdataset" else _source_if_there(args) if form == "coco" else None
    places = Places(out=out, form=form, shard=_shard(args))
    places.check(_read(args), source)
    with keeping([*places.others(places.one_file), *_read(args)]):
        report = export(args.journal, out, form=form, options=options, source=source, shard=places.shard)
    show("export", report)
    unchanged = f", {report.unchanged:,} unchanged" if report.unchanged else ""
    said = sys.stderr if args.out == STDOUT else sys.stdout
    print(f"{report.written:,} images written{unchanged}, {report.failed:,} failed", file=said)
    return SOME_FAILED if report.problem_count else OK


def _source_if_there(args):
    """For the ids of a COCO file, which the images may have been moved away from."""
    from jaxphoton.batch.errors import SourceError

    try:
        return _source(args)
    except SourceError:
        return None


def _shard(args) -> tuple[int, int]:
    from jaxphoton.batch.sources import parse_shard

    return parse_shard(args.shard) if args.shard else (0, 1)


def _read(args) -> list[str]:
    """The journal, and files that the run has read."""
    from jaxphoton.batch.errors import SourceError
    from jaxphoton.batch.places import input_files

    try:
        return [str(args.journal), *args.flagfiles, *input_files(_inputs(args)[0])]
    except SourceError:  # they are gone
        return [str(args.journal), *args.flagfiles]


def _inputs(args) -> tuple[list[str], dict[str, Any]]:
    """What the run has read, from the options or the journal's header, and its settings."""
    from jaxphoton.batch.journal.reading import JournalReader

    with JournalReader(args.journal) as reader:
        settings = reader.header.settings
    return args.input or settings.get("input", []), dict(settings)


def _source(args):
    from jaxphoton.batch.sources import SourceOptions, open_source

    inputs, settings = _inputs(args)
    columns = settings.get("columns", {})
    exclude = tuple(columns.get("exclude", ()))
    options = SourceOptions(columns.get("image"), columns.get("key"), root=columns.get("root"), exclude=exclude)
    return open_source(inputs, options)
