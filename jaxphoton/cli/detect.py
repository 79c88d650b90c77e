"""`jaxphoton detect`: boxes around every object of a kind."""

from __future__ import annotations

from jaxphoton.cli.base import asked
from jaxphoton.cli.batch_options import BATCH_HELP, add_batch_options

EPILOG = f"""\
{BATCH_HELP}
  "objects" is a list of {{x_min, y_min, x_max, y_max}}, as fractions of the width and height.
  The object may have variables: {{name}}, {{dir}}, {{caption}}, and the name of any column of a list, table or tar.
  Braces around anything else stay; {{{{name}}}} is the text {{name}}.

examples:
  jaxphoton detect street.png --object car
  jaxphoton detect photos/ --object "red ball" --max-objects 5 --out balls.json
  jaxphoton detect photos/ --object car --out labels/ --form yolo
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "detect",
        help="find objects, as boxes",
        description="Finds every object of a kind: {key, objects}.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to ask")
    group.add_argument("--object", type=asked, required=True, metavar="TEXT", help="what to find")
    add_batch_options(parser, objects=True)


def run(args) -> int:
    from jaxphoton.batch.questions import Question
    from jaxphoton.cli.batch import parsed, run_batch

    return run_batch(parsed(args), Question("detect", args.object))
