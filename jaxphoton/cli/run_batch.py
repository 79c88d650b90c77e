"""`jaxphoton run-batch`: answers the requests of a file."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

from jaxphoton.batch.errors import SettingsDiffer
from jaxphoton.batch.options import NAMES, RunOptions
from jaxphoton.cli.base import (
    INTERRUPTED,
    OK,
    SOME_FAILED,
    CommandError,
    add_adapter_option,
    add_model_options,
    say,
    spelled,
)
from jaxphoton.cli.batch_options import add_engine_options, add_picture_options

EPILOG = """\
input:
  A JSON object a line, in OpenAI's batch form:
    {"custom_id": "1", "method": "POST", "url": "/v1/caption", "body": {"image_url": "cat.jpg", "length": "short"}}
  The url is one of the server's (/v1/chat/completions, /v1/caption, /v1/query, /v1/detect, /v1/point, /v1/segment), the
  body what the server takes there; each line asks something of its own, with settings of its own. A picture is a data
  address, base64, a path (file:///..., or relative to the folder of the input), or with --allow-remote-images an http
  address. stream, timeout and priority of a body are passed over.

output:
  A line for each of the input, in the same order, with the same custom_id:
    {"id": ..., "custom_id": "1", "response": {"status_code": 200, "request_id": ..., "body": {...}}, "error": null}
  While it runs, answers go to the journal OUTPUT.journal, from which OUTPUT is made at the end. Give the same command
  again to go on after an interruption: what the journal has is not asked again. A line that cannot be answered has
  its error in its place, the others go on, and the exit code is 2.

examples:
  jaxphoton run-batch asks.jsonl answers.jsonl
  jaxphoton run-batch asks.jsonl answers.jsonl --errors failed.jsonl --model vikhyatk/moondream2 --replicas auto
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "run-batch",
        help="answer a file of requests (OpenAI's batch form)",
        description="Answers the requests of a file in OpenAI's batch form, as the server would.",
        epilog=EPILOG,
    )
    parser.add_argument("input", metavar="INPUT", help="the requests, see below")
    parser.add_argument("output", metavar="OUTPUT", help="where the answers go, see below")
    parser.add_argument("--errors", metavar="FILE", help="where lines that failed go, instead of OUTPUT")
    parser.add_argument(
        "--allow-remote-images",
        action="store_true",
        help="fetch pictures that are http addresses, but none from private networks",
    )
    group = parser.add_argument_group("going on")
    group.add_argument("--retry-failed", action="store_true", help="ask the lines again that failed before")
    group.add_argument("--journal", type=Path, metavar="FILE", help="the journal (default: OUTPUT.journal)")
    group.add_argument(
        "--allow-changes", action="store_true", help="go on though the input or options differ from the journal's"
    )
    group.add_argument("--restart", action="store_true", help="throw the journal away and begin again")
    add_picture_options(parser)
    add_engine_options(parser.add_argument_group("the run"))
    add_adapter_option(
        add_model_options(parser),
        'for bodies whose model ends in "/NAME", or with {"settings": {"adapter": "NAME"}}; may be repeated',
    )


def run(args: argparse.Namespace) -> int:
    needed = ("msgspec", *(["aiohttp"] if args.allow_remote_images else []))
    if missing := [name for name in needed if find_spec(name) is None]:
        raise CommandError(f"run-batch needs {', '.join(missing)}: pip install 'jaxphoton[serve]'")
    from jaxphoton.batch.requests.runner import RequestRules
    from jaxphoton.batch.requests.running import run_requests
    from jaxphoton.batch.requests.web import web_pictures
    from jaxphoton.cli.shown import Shown

    given = {name: getattr(args, spelled(name)[2:].replace("-", "_"), None) for name in NAMES}
    given = {name: value for name, value in given.items() if value is not None} | {"replicas": args.replicas}
    shown = Shown(args.command, f"model {args.model}", json_lines=False, quiet=True)
    try:
        with web_pictures() if args.allow_remote_images else nullcontext() as fetch:
            result = run_requests(
                args.input,
                args.output,
                args.errors,
                model=args.model,
                options=RunOptions().changed(**given),
                observer=shown,
                signals=True,
                rules=RequestRules(fetch=fetch),
            )
    except SettingsDiffer as error:
        raise CommandError(f"{error}. Go on with --allow-changes, or begin again with --restart") from error
    if result.failed:
        where = args.output if args.errors is None else args.errors
        lines = f"{result.failed:,} of {result.done:,} request{'s' * (result.done != 1)}"
        say(args.command, f"{lines} failed; their errors are in {where}")
    if result.stopped:
        say(args.command, "interrupted; the same command goes on")
        return INTERRUPTED
    return SOME_FAILED if result.failed else OK
