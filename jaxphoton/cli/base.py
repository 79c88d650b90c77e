"""What every command shares: the parser class, the fatal error, checked option values."""

from __future__ import annotations

import argparse
import math
import os
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, NoReturn

from absl import flags
from absl.flags import argparse_flags

from jaxphoton.config.mesh import MeshError, mesh_shape
from jaxphoton.config.quantization import NAMES
from jaxphoton.files import open_regular
from jaxphoton.messages import quoted, to_stderr
from jaxphoton.requests.adapter_folder import check_name
from jaxphoton.requests.settings import MAX_SEED, MAX_TEMPERATURE

OK, FATAL, SOME_FAILED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
STDOUT = "-"  # as the name of an output

_LARGEST_TEXT = 1 << 20
_SPELLED = {"background": "--alpha-background", "adapters": "--adapter"}


class CommandError(Exception):
    """A fault the user can mend; its message goes to stderr and the exit code is 1."""


def spelled(name: str) -> str:
    """The command line's name of an option of a run."""
    return _SPELLED.get(name) or f"--{name.replace('_', '-')}"


def say(command: str, text: str) -> None:
    """A line for people."""
    to_stderr(f"jaxphoton {command}: {text}")


class CommandParser(argparse_flags.ArgumentParser):
    """A parser whose options have one spelling each, with `--flagfile` but none of absl's own flags.

    `--flagfile` belongs after the command: the top parser takes none, or it would read the file's options itself.
    """

    def __init__(self, *, flagfile: bool = True, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # A registry of its own: absl's global one holds flags of every imported library.
        self._files = _FlagFiles() if flagfile else None
        super().__init__(inherited_absl_flags=self._files, allow_abbrev=False, add_help=False, **kwargs)
        self.add_argument("-h", "--help", action="help", help="show this help and exit")
        if flagfile:
            # absl reads the option before argparse sees it; this line is for the help.
            self.add_argument("--flagfile", metavar="FILE", help="read options from a file, one --name=value a line")

    def parse_known_args(self, args=None, namespace=None):
        try:
            found, rest = super().parse_known_args(args, namespace)
        except flags.Error as error:
            self.error(str(error))
        if rest:  # said here, by the command that knows its options, and not by the top parser
            self.error(f"unrecognized arguments: {' '.join(rest)}{self._meant(rest)}")
        if self._files is not None:
            found.flagfiles = self._files.read
        return found, rest

    def _meant(self, unknown: list[str]) -> str:
        names = (text.partition("=")[0] for text in unknown)
        options = [option for option in self._option_string_actions if option.startswith("--")]
        found = [close for name in names for close in get_close_matches(name, options, 1)]
        return f"; did you mean {' '.join(dict.fromkeys(found))}?" if found else ""

    def error(self, message: str) -> NoReturn:
        """Exits with 1: argparse's 2 means here that some images failed. The usage is left out: that of a command with
        forty options hides the message."""
        self.exit(FATAL, f"usage: see `{self.prog} --help`\n{self.prog}: {message}\n")


class _FlagFiles(flags.FlagValues):
    """Reads the files of `--flagfile` as all text files of the command line are read.

    Attributes:
      read: the files.
    """

    def __init__(self):
        super().__init__()
        self.__dict__["read"] = []  # absl takes attributes for flags

    def _get_flag_file_lines(self, filename: str, parsed_file_stack: list[str] | None = None) -> list[str]:
        opened = [] if parsed_file_stack is None else parsed_file_stack
        if filename in opened:
            raise flags.Error(f"--flagfile {filename}: it names itself")
        try:
            text = read_text(filename, "--flagfile")
        except CommandError as error:
            raise flags.Error(str(error)) from error
        self.__dict__["read"].append(filename)
        found: list[str] = []
        for line in map(str.strip, text.split("\n")):
            if line.startswith(("--flagfile=", "-flagfile=")):
                inner = os.path.expanduser(line.partition("=")[2].strip())
                found += self._get_flag_file_lines(inner, [*opened, filename])
            elif line and not line.startswith(("#", "//")):
                found.append(line)
        return found


def read_text(path: str | os.PathLike, option: str) -> str:
    """The file that an option names: UTF-8, with or without a byte order mark; all ends of lines become "\\n".

    Raises:
      CommandError: it is not such a file, cannot be read, or is larger than 1 MiB; the message names the option.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST_TEXT + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise CommandError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > _LARGEST_TEXT:
        raise CommandError(f"{option} {path}: larger than 1 MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 of plain letters decodes, with a NUL behind each
        raise CommandError(f"{option} {path}: not UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_drawing() -> None:
    """Before the work that is to be drawn.

    Raises:
      CommandError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise CommandError("drawing needs matplotlib: pip install 'jaxphoton[plot]'")


def plain(text: str) -> str:
    """An argparse type: a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("not UTF-8 text") from None
    return text


def asked(text: str) -> str:
    """An argparse type: a text in which there is something to see."""
    from jaxphoton.batch.quality import blank

    if blank(text):
        raise argparse.ArgumentTypeError("must not be empty")
    return plain(text)


def number(kind: type, low: float, high: float = math.inf, *, above: bool = False):
    """An argparse type: an int or float from `low` (or, with `above`, greater than it) to `high`."""

    limits = f"{'above' if above else 'at least'} {low}" + (f", at most {high}" if high < math.inf else "")

    def parse(text: str):
        given = text if len(text) < 50 else f"{text[:40]}..."
        try:
            value = kind(text)
        except ValueError:
            wanted = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{given!r} is not a {wanted} {limits}") from None
        # Infinity is no number either, but a range without end holds it.
        if value == math.inf or not (low < value if above else low <= value) or value > high:
            raise argparse.ArgumentTypeError(f"{given} must be {limits}")
        return value

    return parse


def numbers(text: str) -> list[int]:
    """An argparse type: positive whole numbers such as 1,8,32."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 8,64")
    return values


def named_path(text: str) -> tuple[str, str]:
    """An argparse type: NAME=PATH of an adapter."""
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not of the form NAME=PATH")
    try:
        return check_name(name), os.path.expanduser(path)  # a shell does that only where a word begins
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_adapter_option(group: argparse._ArgumentGroup, use: str) -> None:
    """
    Args:
      use: which requests have it, for the help.
    """
    group.add_argument(
        "--adapter",
        action="append",
        default=[],
        type=named_path,
        metavar="NAME=PATH",
        help=f"an adapter (LoRA): a folder of PEFT, or a file of Moondream's own forms or ours; {use}",
    )


def add_adapter_room(parser: argparse.ArgumentParser) -> None:
    """How much room for adapters an engine is to have, where there are none yet."""
    parser.add_argument(
        "--adapter-slots", type=number(int, 0), default=0, metavar="N", help="adapters at once (default: none)"
    )
    parser.add_argument(
        "--adapter-rank", type=number(int, 1), default=16, metavar="R", help="their largest rank (default: 16)"
    )


def mesh_text(text: str) -> str:
    """An argparse type: a mesh."""
    try:
        mesh_shape(text)
    except MeshError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_model_options(
    parser: argparse.ArgumentParser, *, quantize: bool = True, mesh: bool = True
) -> argparse._ArgumentGroup:
    """Which model, and how it is loaded; the group of these options.

    Args:
      quantize: whether `--quantize` is one of them; a command may have its own.
      mesh: whether `--mesh` is.
    """
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default="shapes",
        metavar="NAME",
        help="a folder, a Hugging Face id, or 'shapes', the tiny model inside the package (default: shapes)",
    )
    group.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hugging Face model")
    group.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="precision (default: bfloat16, on a CPU float32)"
    )
    if quantize:
        add_quantize_option(group)
    if mesh:
        group.add_argument(
            "--mesh",
            type=mesh_text,
            metavar="AXIS=N,...",
            help="the devices that share the model out: model=2; experts also by expert=2; data=2 is as --replicas 2 "
            "(default: one device)",
        )
    group.add_argument(
        "--max-pixels",
        type=number(int, 1),
        metavar="N",
        help="refuse images of more pixels than this (default: a safe bound)",
    )
    return group


def add_quantize_option(parser: Any) -> None:
    """To a parser or a group of one."""
    parser.add_argument(
        "--quantize",
        choices=NAMES,
        help="large matrices in few bits, made on the way to the device; what a checkpoint stores so is kept, and "
        "'none' brings all to --dtype (default: as in the checkpoint)",
    )


def add_sampling_options(parser: argparse.ArgumentParser, *, objects: bool = False) -> argparse._ArgumentGroup:
    """How tokens are chosen, greedily by default, so that a second run gives the same; the group of these options."""
    group = parser.add_argument_group("generation (greedy unless --temperature is given: the same output every run)")
    top_p, budget = ("1.0", "enough for --max-objects") if objects else ("the model's", "the model's, 512 or 768")
    group.add_argument(
        "--temperature",
        type=number(float, 0, MAX_TEMPERATURE),
        default=0.0,
        metavar="T",
        help="0 is greedy: always the likeliest token (default: 0)",
    )
    group.add_argument(
        "--top-p",
        type=number(float, 0, 1, above=True),
        metavar="P",
        help=f"sample from the likeliest tokens that together are this probable (default: {top_p})",
    )
    group.add_argument("--max-tokens", type=number(int, 1), metavar="N", help=f"at most N tokens (default: {budget})")
    group.add_argument(
        "--seed", type=number(int, 0, MAX_SEED), metavar="N", help="makes sampling with a temperature repeatable"
    )
    if objects:
        group.add_argument("--max-objects", type=number(int, 1), metavar="N", help="find at most N (default: 50)")
    return group
