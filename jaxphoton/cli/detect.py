"""`jaxphoton detect`: boxes around every object of a kind."""

from __future__ import annotations

from jaxphoton.cli.base import add_model_options, add_sampling_options
from jaxphoton.cli.images import PATHS_HELP, add_image_arguments, run_images
from jaxphoton.cli.tracing import add_trace_options

EPILOG = f"""\
{PATHS_HELP}
  "objects" is a list of {{x_min, y_min, x_max, y_max}}, as fractions of the width and height.

examples:
  jaxphoton detect street.png --object car
  jaxphoton detect photos/ --object "red ball" --max-objects 5 --out balls.jsonl
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "detect",
        help="find objects, as boxes",
        description="Finds every object of a kind, one JSON line an image: {key, objects}.",
        epilog=EPILOG,
    )
    add_image_arguments(parser)
    parser.add_argument("--object", required=True, metavar="TEXT", help="what to find")
    add_model_options(parser)
    add_sampling_options(parser, objects=True)
    add_trace_options(parser)


def run(args) -> int:
    return run_images(args, "detect", {"object": args.object}, ("objects",), readable)


def readable(record) -> str:
    """The boxes of a record as text, e.g. `1 found: (0.10, 0.20) to (0.30, 0.40)`."""
    boxes = [
        f"({box['x_min']:.2f}, {box['y_min']:.2f}) to ({box['x_max']:.2f}, {box['y_max']:.2f})"
        for box in record["objects"]
    ]
    return f"{len(boxes)} found" + (": " + "; ".join(boxes) if boxes else "")
