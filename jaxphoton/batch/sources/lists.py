"""Lists of images as text: `.txt` with a path or URL a line, `.jsonl` with an object a line."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from typing import IO, Any

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources.base import LOOKED_AT, Seen, Skipped, Source, SourceOptions, Wanted, count_keys, every
from jaxphoton.batch.sources.containers import stem_of
from jaxphoton.batch.sources.files import file_item
from jaxphoton.batch.sources.item import Item, broken
from jaxphoton.batch.sources.remote import open_seekable
from jaxphoton.batch.sources.storage import absolute, exists, is_remote, parent
from jaxphoton.batch.sources.values import image_item, is_embedded, path_of
from jaxphoton.messages import listed, quoted, short

IMAGE_COLUMNS = (
    "path",
    "image_path",
    "file_name",
    "image",
    "images",
    "img",
    "url",
    "image_url",
    "image_bytes",
    "bytes",
)
KEY_COLUMNS = ("key", "id")
# Of a line; more than an image in base64 may have.
_LINE_BYTES = 1 << 28
_CHUNK = 1 << 20


class TextList(Source):
    """A path or URL a line; empty lines are passed over. The key is the line, of a `data:` address its number; a line
    that comes twice is done once."""

    plain = True

    def __init__(self, path: str, options: SourceOptions):
        super().__init__()
        self._path, self._options = path, options
        self._root = parent(path) if options.root is None else options.root
        self.place = stem_of(absolute(path))
        if not is_remote(path) and not exists(path):
            raise SourceError(f"{path} does not exist")
        _, first = next(self._lines(), (0, ""))
        if first == "":
            raise SourceError(f"{path}: the list is empty")
        if first is not None and "\0" in first:  # as in UTF-16
            raise SourceError(f"{path}: not a list in UTF-8")

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        seen, skipped = Seen(), Skipped()
        wanted = self._options.kept(wanted, skipped)
        for number, line in self._lines():
            if line is None:
                where = self._line(number)
                if wanted(where):
                    fault = f"a line of more than {_LINE_BYTES >> 20} MiB"
                    yield broken(where, self._where(number), "bad-entry", fault)
            else:
                yield from self._entry(number, line, seen, wanted)
        self.skipped = skipped

    def count(self) -> int | None:
        return None if is_remote(self._path) else count_keys(self)

    def _lines(self) -> Iterator[tuple[int, str | None]]:
        """Numbers from 1, and the lines that hold something; None for one that is too long."""
        try:
            with open_seekable(self._path, self._options.retry) as file:
                for number, line in enumerate(bounded_lines(file), 1):
                    # A path may hold any bytes.
                    text = None if line is None else line.decode("utf-8", "surrogateescape")
                    if text is None or (text := text.strip().removeprefix("\ufeff")):
                        yield number, text
        except Exception as error:  # storage libraries pass on whatever their HTTP client throws
            raise SourceError(f"{self._path}: cannot be read: {error}") from error

    def _entry(self, number: int, line: str, seen: Seen, wanted: Wanted) -> Iterator[Item]:
        if is_embedded(line):
            key = self._number(number)
            if wanted(key):
                yield image_item(line, key, self._where(number), self._root, self._options.retry)
        elif seen.clash(line, line) is None and wanted(line):
            yield file_item(line, absolute(line, self._root), retry=self._options.retry)

    def _line(self, number: int) -> str:
        return f"{posixpath.basename(self._path)} line {number}"

    def _number(self, number: int) -> str:
        return f"{posixpath.basename(stem_of(self._path))}/{number}"

    def _where(self, number: int) -> str:
        return f"{absolute(self._path)}#{number}"


class JsonLines(TextList):
    """A JSON object a line, with an image in one column: a path or URL, or what `image_item` takes.

    The key is that of the key column, by default "key" or "id" where there is one, else the path, or the number of the
    line where there is none. A line that comes twice is done once; different lines of one key are failures from the
    second on.
    """

    plain = False

    def columns(self, needed: Collection[str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for _, line in islice(self._lines(), LOOKED_AT):
            with suppress(ValueError):
                found |= dict.fromkeys(_object(line or ""))
            if found.keys() >= set(needed):
                break
        return tuple(found)

    def _entry(self, number: int, line: str, seen: Seen, wanted: Wanted) -> Iterator[Item]:
        where, path = self._line(number), self._where(number)
        try:
            row = _object(line)
            image = _image(row, self._options.image_column)
            key = _key(row, self._options.key_column) or path_of(image) or self._number(number)
            if lacking := [name for name in self._options.required_columns if row.get(name) is None]:
                raise ValueError(f"no column {lacking[0]!r}")
        except ValueError as error:
            if wanted(where):
                yield broken(where, path, "bad-entry", str(error))
            return
        clash = seen.clash(key, line)
        if clash:
            again = f"{key} ({where})"
            if wanted(again):
                fault = f"the key {quoted(key)} was given before; add a column 'key'"
                yield broken(again, path, "duplicate-key", fault)
        elif clash is None and wanted(key):
            columns = {name: row[name] for name in self._options.all_columns if row.get(name) is not None}
            yield image_item(image, key, path, self._root, self._options.retry, columns)


def _object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def _image(row: dict[str, Any], asked: str | None) -> Any:
    names = IMAGE_COLUMNS if asked is None else (asked,)
    for name in names:
        value = row.get(name)
        if isinstance(value, (str, int, list, dict)) and not isinstance(value, bool) and value not in ("", [], {}):
            return value
    raise ValueError(f"no image column: none of {listed(names)} among {listed(map(short, row)) or 'no columns'}")


def _key(row: dict[str, Any], asked: str | None) -> str | None:
    for name in KEY_COLUMNS if asked is None else (asked,):
        if isinstance(value := row.get(name), (str, int)) and value != "":
            return str(value)
    if asked is None:
        return None
    raise ValueError(f"no key column: none of {short(asked)} among {listed(map(short, row)) or 'no columns'}")


def bounded_lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long to be held."""
    parts, held = [], 0
    while chunk := file.read(_CHUNK):  # not all of fsspec's files have a `readline` with a bound
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            yield None if held > _LINE_BYTES else b"".join([*parts, line])
            parts, held = [], 0
        held += len(rest)
        parts = [*parts, rest] if held <= _LINE_BYTES else []
    if held:
        yield None if held > _LINE_BYTES else b"".join(parts)
