"""The entry point: finds the command, runs it, turns faults into exit codes."""

from __future__ import annotations

import argparse
import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from jaxphoton import __version__
from jaxphoton.batch.errors import BatchError, OptionError
from jaxphoton.cli.base import BROKEN_PIPE, FATAL, INTERRUPTED, CommandError, CommandParser, spelled
from jaxphoton.cli.skills import SkillCommand
from jaxphoton.messages import compiling_shown
from jaxphoton.requests.errors import EngineError, fault_of
from jaxphoton.requests.skills import SKILLS

# Besides those of the skills.
COMMANDS = (
    "run-batch",
    "serve",
    "export",
    "verify",
    "convert",
    "compile",
    "bench",
    "timeline",
    "roofline",
    "plan",
    "quality",
)

DESCRIPTION = "Moondream vision-language models on JAX: captions, answers, boxes and points from images."
EPILOG = """\
examples:
  jaxphoton caption photos/ --out captions.jsonl
  jaxphoton query cat.jpg --question "What colour is the cat?"
  jaxphoton detect street.png --object car
  jaxphoton caption --help

exit codes: 0 all done, 1 nothing could be done, 2 some images failed, 130 interrupted
"""


def commands() -> dict[str, Any]:
    """What has `add_parser` and `run`, by command."""
    skills = {name: SkillCommand(skill) for name, skill in SKILLS.items()}
    modules = {name: import_module(f"jaxphoton.cli.{name.replace('-', '_')}") for name in ("caption", *COMMANDS)}
    return skills | modules


def build_parser() -> tuple[CommandParser, dict[str, Any]]:
    """The parser and what runs each command."""
    parser = CommandParser(flagfile=False, prog="jaxphoton", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"jaxphoton {__version__}")
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", required=True, parser_class=CommandParser
    )
    found = commands()
    for command in found.values():
        command.add_parser(subparsers)
    return parser, found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    _use_utf8()
    parser, runners = build_parser()
    args = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    code = _run(args, runners)
    if distributed := sys.modules.get("jaxphoton.distributed"):
        distributed.leave(code)
    return code


def _run(args: argparse.Namespace, runners: dict[str, Any]) -> int:
    """The exit code of a command; its faults are told."""
    try:
        with compiling_shown(f"jaxphoton {args.command}: "):
            return runners[args.command].run(args)
    except (CommandError, EngineError, BatchError) as error:
        fault = error.spelled(spelled) if isinstance(error, OptionError) else error
        print(f"jaxphoton {args.command}: {fault}", file=sys.stderr)
        return FATAL
    except KeyboardInterrupt:
        print(f"jaxphoton {args.command}: interrupted", file=sys.stderr)
        if any(thread.name.startswith("jaxphoton-compiling") for thread in threading.enumerate()):
            sys.stdout.flush()
            os._exit(INTERRUPTED)  # Python would wait for the compiler, which nothing stops
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this, Python complains once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if not isinstance(error, tuple(_device_faults())):
            raise
        print(f"jaxphoton {args.command}: {fault_of(error)}", file=sys.stderr)
        return FATAL


def _device_faults() -> Iterator[type[Exception]]:
    """What a device that is missing, too small or broken makes jax and our programs raise; imports none of them."""
    yield MemoryError
    for module, name in (
        ("jaxphoton.platform", "NoDeviceError"),
        ("jaxphoton.engine.memory", "DeviceMemoryError"),
        ("kernels_pallas.dispatch", "KernelUnavailable"),
        ("jax.errors", "JaxRuntimeError"),
    ):
        if module in sys.modules:
            yield getattr(sys.modules[module], name)


def _use_utf8() -> None:
    # backslashreplace: a file name that is not UTF-8 becomes a JSON escape that reads back as the same name.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    raise SystemExit(main())
