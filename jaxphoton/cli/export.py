"""`jaxphoton export`: the results of a run in another form."""

from __future__ import annotations

from pathlib import Path

from jaxphoton.cli.base import OK, SOME_FAILED, CommandError
from jaxphoton.cli.batch_options import add_export_options
from jaxphoton.cli.output import show

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
    parser.add_argument("--out", metavar="OUT", help="a file or folder (default: beside the images)")
    add_export_options(parser.add_argument_group("output"))
    parser.add_argument("--failures", action="store_true", help="only the images that failed, as JSON lines")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page to look at instead: report.html")
    parser.add_argument("--input", nargs="+", metavar="INPUT", help="what the run has read (default: as it was given)")
    parser.add_argument("--shard", metavar="I/N", help="the part of the input that the run has read")


def run(args) -> int:
    from jaxphoton.batch.errors import BatchError
    from jaxphoton.batch.exports import ExportOptions, export, form_of

    try:
        if args.report:
            from jaxphoton.batch.report import write_report

            write_report(args.journal, args.report, source=_source(args))
            return OK
        form = "failures" if args.failures else args.form or form_of(args.out)
        options = ExportOptions(existing=args.existing, extension=args.extension)
        source = _source(args) if form == "webdataset" else _source_if_there(args) if form == "coco" else None
        report = export(args.journal, args.out, form=form, options=options, source=source)
    except BatchError as error:
        raise CommandError(str(error)) from error
    show("export", report)
    unchanged = f", {report.unchanged:,} unchanged" if report.unchanged else ""
    print(f"{report.written:,} images written{unchanged}, {report.failed:,} failed")
    return SOME_FAILED if report.problem_count else OK


def _source_if_there(args):
    """For the ids of a COCO file, which the images may have been moved away from."""
    from jaxphoton.batch.errors import SourceError

    try:
        return _source(args)
    except SourceError:
        return None


def _source(args):
    """What the run has read, from the options or the journal's header."""
    from jaxphoton.batch.reading import JournalReader
    from jaxphoton.batch.sources import Selection, SourceOptions, open_source, parse_shard

    with JournalReader(args.journal) as reader:
        settings = reader.header.settings
    columns = settings.get("columns", {})
    exclude = tuple(columns.get("exclude", ()))
    options = SourceOptions(columns.get("image"), columns.get("key"), root=columns.get("root"), exclude=exclude)
    source = open_source(args.input or settings.get("input", []), options)
    return Selection(parse_shard(args.shard)).part(source)[0] if args.shard else source
