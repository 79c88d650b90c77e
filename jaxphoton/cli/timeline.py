"""`jaxphoton timeline`: traces of runs as one picture."""

from __future__ import annotations

from pathlib import Path

from jaxphoton.cli.base import OK, CommandError, check_drawing, number

DESCRIPTION = """\
Draws traces written with --trace one above the other: for each slot of the pipeline when a launch was in flight, and
beneath what the host did. By default every run is shown in its steady state, some decode steps long."""

EPILOG = """\
examples:
  jaxphoton caption photos/ --depth 1 --trace blocking.json
  jaxphoton caption photos/ --depth 2 --trace pipelined.json
  jaxphoton timeline blocking.json pipelined.json --png timeline.png

A trace opens in ui.perfetto.dev too.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("timeline", help="draw traces of runs", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="files written with --trace")
    parser.add_argument("--png", type=Path, required=True, metavar="FILE", help="the picture to write")
    parser.add_argument(
        "--start-ms", type=number(float, 0), metavar="MS", help="show each run from here on (default: steady state)"
    )
    parser.add_argument(
        "--window-ms", type=number(float, 0, above=True), metavar="MS", help="show so much (default: some steps)"
    )


def run(args) -> int:
    check_drawing()
    from jaxphoton.measure.lanes import TraceError, draw, read_run, windows

    try:
        runs = [read_run(path) for path in args.traces]
        figure = draw(runs, windows(runs, args.start_ms, args.window_ms))
        figure.savefig(args.png, format="png")
    except TraceError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    return OK
