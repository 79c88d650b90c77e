"""`jaxphoton query`: answers a question about images."""

from __future__ import annotations

import argparse

from jaxphoton.cli.base import asked
from jaxphoton.cli.batch_options import BATCH_HELP, add_batch_options

EPILOG = f"""\
{BATCH_HELP}
  The question may have variables: {{name}}, {{dir}}, {{caption}}, and the name of any column of a list, table or tar.
  Braces around anything else stay; {{{{name}}}} is the text {{name}}.

examples:
  jaxphoton query cat.jpg --question "What colour is the cat?"
  jaxphoton query photos/ --question "Is there a watermark? Answer yes or no." --max-tokens 3 --out marks.jsonl
  jaxphoton query questions.jsonl --question "{{question}}" --out answers.jsonl
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "query",
        help="ask a question about images",
        description="Asks a question about every image: {key, answer}.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to ask")
    group.add_argument("--question", type=asked, required=True, metavar="TEXT", help="what to ask about every image")
    group.add_argument(
        "--reasoning",
        action=argparse.BooleanOptionalAction,
        help="let the model think first; its thoughts become 'reasoning' (default: as the model does)",
    )
    add_batch_options(parser)


def run(args) -> int:
    from jaxphoton.batch.questions import Question
    from jaxphoton.cli.batch import parsed, run_batch

    return run_batch(parsed(args), Question("query", args.question, reasoning=args.reasoning))
