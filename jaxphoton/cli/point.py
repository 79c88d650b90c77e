"""`jaxphoton point`: the centre of every object of a kind."""

from __future__ import annotations

from jaxphoton.cli.base import asked
from jaxphoton.cli.batch_options import BATCH_HELP, add_batch_options

EPILOG = f"""\
{BATCH_HELP}
  "points" is a list of {{x, y}}, as fractions of the width and height.
  The object may have variables: {{name}}, {{dir}}, {{caption}}, and the name of any column of a list, table or tar.
  Braces around anything else stay; {{{{name}}}} is the text {{name}}.

examples:
  jaxphoton point street.png --object wheel
  jaxphoton point photos/ --object face --out faces.jsonl
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "point",
        help="find objects, as points",
        description="Points at every object of a kind: {key, points}.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to ask")
    group.add_argument("--object", type=asked, required=True, metavar="TEXT", help="what to point at")
    add_batch_options(parser, objects=True)


def run(args) -> int:
    from jaxphoton.batch.questions import Question
    from jaxphoton.cli.batch import parsed, run_batch

    return run_batch(parsed(args), Question("point", args.object))
