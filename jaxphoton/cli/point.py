"""`jaxphoton point`: the centre of every object of a kind."""

from __future__ import annotations

from jaxphoton.cli.base import add_model_options, add_sampling_options
from jaxphoton.cli.images import PATHS_HELP, add_image_arguments, run_images
from jaxphoton.cli.tracing import add_trace_options

EPILOG = f"""\
{PATHS_HELP}
  "points" is a list of {{x, y}}, as fractions of the width and height.

examples:
  jaxphoton point street.png --object wheel
  jaxphoton point photos/ --object face --out faces.jsonl
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "point",
        help="find objects, as points",
        description="Points at every object of a kind, one JSON line an image: {key, points}.",
        epilog=EPILOG,
    )
    add_image_arguments(parser)
    parser.add_argument("--object", required=True, metavar="TEXT", help="what to point at")
    add_model_options(parser)
    add_sampling_options(parser, objects=True)
    add_trace_options(parser)


def run(args) -> int:
    return run_images(args, "point", {"object": args.object}, ("points",), readable)


def readable(record) -> str:
    """The points of a record as text, e.g. `1 found: (0.10, 0.20)`."""
    points = [f"({point['x']:.2f}, {point['y']:.2f})" for point in record["points"]]
    return f"{len(points)} found" + (": " + "; ".join(points) if points else "")
