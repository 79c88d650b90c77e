"""`jaxphoton segment`: the outline of an object."""

from __future__ import annotations

from jaxphoton.cli.base import asked
from jaxphoton.cli.batch_options import BATCH_HELP, add_batch_options

EPILOG = f"""\
{BATCH_HELP}
  "bbox" is {{x_min, y_min, x_max, y_max}} as fractions of the width and height, "path" an SVG path in it, as
  fractions of the box. "parse_error" says why there is no box or no whole path.
  The object may have variables: {{name}}, {{dir}}, {{caption}}, and the name of any column of a list, table or tar.
  Braces around anything else stay; {{{{name}}}} is the text {{name}}.

Moondream 3 can do this; Moondream 2 and the small model inside the package cannot.

examples:
  jaxphoton segment street.png --object car --model moondream/moondream3-preview
  jaxphoton segment photos/ --object "the dog on the left" --model moondream/moondream3-preview --out dogs.jsonl
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "segment",
        help="outline an object",
        description="Outlines an object in every image: {key, path, bbox}.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to ask")
    group.add_argument("--object", type=asked, required=True, metavar="TEXT", help="what to outline")
    add_batch_options(parser)


def run(args) -> int:
    from jaxphoton.batch.questions import Question
    from jaxphoton.cli.batch import parsed, run_batch

    return run_batch(parsed(args), Question("segment", args.object))
