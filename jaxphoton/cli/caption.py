"""`jaxphoton caption`: describes images."""

from __future__ import annotations

from jaxphoton.cli.base import add_model_options, add_sampling_options
from jaxphoton.cli.images import PATHS_HELP, add_image_arguments, run_images
from jaxphoton.cli.tracing import add_trace_options

EPILOG = f"""\
{PATHS_HELP}
examples:
  jaxphoton caption photos/ --out captions.jsonl
  jaxphoton caption a.jpg b.jpg --length short
  jaxphoton caption photos/ --model vikhyatk/moondream2 --temperature 0.5 --seed 1
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "caption",
        help="describe images, one JSON line each",
        description="Describes images, one JSON line each: {key, caption}.",
        epilog=EPILOG,
    )
    add_image_arguments(parser)
    lengths = ["short", "normal", "long"]
    parser.add_argument("--length", choices=lengths, default="normal", help="how much to say (default: normal)")
    add_model_options(parser)
    add_sampling_options(parser)
    add_trace_options(parser)


def run(args) -> int:
    return run_images(args, "caption", {"length": args.length}, ("caption",), lambda record: record["caption"])
