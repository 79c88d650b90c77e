"""Files that may come from a download: only regular ones are opened, and no more is read of one than a bound allows."""

from __future__ import annotations

import json
import os
import stat
from typing import Any, BinaryIO

from jaxphoton.messages import first_line, quoted

MAX_TOKENIZER_BYTES = 64 << 20  # twice the largest vocabularies known
MAX_DIGITS = 4000  # of an integer in JSON: Python reads 4300

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class FileError(ValueError):
    """A file that cannot be read, without its path: what calls names it."""


class NotRegular(OSError):
    """A folder, a pipe, a socket or a device in the place of a file."""


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file, or a link to one, for reading. Nothing else is ever opened or waited for.

    Raises:
      OSError: there is none, or it may not be read; NotRegular: it is something else.
      ValueError: no file can have this name.
    """
    # Before opening: some devices act when they are opened.
    _require_regular(os.stat(path).st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor).st_mode)  # a pipe may have taken its place in between
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def first_bytes(path: str | os.PathLike, most: int) -> bytes:
    """The first `most` bytes of a regular file; none of what cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(most) or b""
    except (OSError, ValueError):
        return b""


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """All bytes of a regular file of at most `most`, whatever size the file system states.

    Raises:
      FileError: it is not one, or larger.
    """
    try:
        with open_regular(path) as file:
            data = file.read(most + 1) or b""  # None: a file of the kernel that has nothing now
    except (OSError, ValueError) as error:
        raise FileError(reason(error)) from error
    if len(data) > most:
        raise FileError(f"larger than the {most:,} bytes that such a file may have")
    return data


def read_json(path: str | os.PathLike, most: int) -> Any:
    """The value of a JSON file of at most `most` bytes.

    Raises:
      FileError: not a regular file, too large, not JSON, nested beyond reason, or with a name twice in one object.
    """
    data = read_bytes(path, most)
    if not data.strip():
        raise FileError("an empty file, not JSON")
    return parse_json(data.removeprefix(b"\xef\xbb\xbf"))


def parse_json(data: bytes) -> Any:
    """The value of JSON in UTF-8; integers of thousands of digits become infinite floats.

    Raises:
      FileError: not JSON, nested beyond reason, or with a name twice in one object.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_int=_integer)
    except FileError:
        raise
    except UnicodeDecodeError as error:
        raise FileError(f"not JSON: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise FileError("not JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise FileError(f"not JSON: {error}") from None


def reason(error: OSError | ValueError) -> str:
    """Why a file could not be opened or read, without its path."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, NotRegular):
        return str(error)
    return f"cannot be read: {getattr(error, 'strerror', None) or first_line(error)}"


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotRegular(f"{KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise FileError(f"the name {quoted(twice)} occurs twice")
    return keys


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= MAX_DIGITS else float(text)
