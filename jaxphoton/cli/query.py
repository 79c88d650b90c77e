"""`jaxphoton query`: answers a question about images."""

from __future__ import annotations

from jaxphoton.cli.base import add_model_options, add_sampling_options
from jaxphoton.cli.images import PATHS_HELP, add_image_arguments, run_images
from jaxphoton.cli.tracing import add_trace_options

EPILOG = f"""\
{PATHS_HELP}
examples:
  jaxphoton query cat.jpg --question "What colour is the cat?"
  jaxphoton query photos/ --question "Is there a watermark? Answer yes or no." --max-tokens 3 --out marks.jsonl
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "query",
        help="ask a question about images",
        description="Asks one question about every image, one JSON line each: {key, answer}.",
        epilog=EPILOG,
    )
    add_image_arguments(parser)
    parser.add_argument("--question", required=True, metavar="TEXT", help="what to ask about every image")
    parser.add_argument(
        "--reasoning", action="store_true", help="let the model think first; its thoughts become 'reasoning'"
    )
    add_model_options(parser)
    add_sampling_options(parser)
    add_trace_options(parser)


def run(args) -> int:
    arguments = {"question": args.question, "reasoning": args.reasoning}
    return run_images(args, "query", arguments, ("answer", "reasoning"), lambda record: record["answer"])
