"""Lists of images as text: `.txt` with a path or URL a line, `.jsonl` with an object a line."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources.base import Seen, Source, SourceOptions, Wanted, every
from jaxphoton.batch.sources.files import file_item
from jaxphoton.batch.sources.item import Item, broken
from jaxphoton.batch.sources.storage import absolute, exists, is_remote, open_binary, parent

IMAGE_COLUMNS = ("path", "image_path", "file_name", "image", "url", "image_url")
KEY_COLUMNS = ("key", "id")


class TextList(Source):
    """A path or URL a line; empty lines are passed over. The key is the line; a line that comes twice is done once."""

    def __init__(self, path: str, options: SourceOptions):
        self._path = path
        self._root = parent(path) if options.root is None else options.root
        if not is_remote(path) and not exists(path):
            raise SourceError(f"{path} does not exist")
        if next(self._lines(), None) is None:
            raise SourceError(f"{path}: the list is empty")

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        seen = Seen()
        for number, line in self._lines():
            yield from self._entry(number, line, seen, wanted)

    def count(self) -> int | None:
        return None if is_remote(self._path) else sum(1 for _ in self._lines())

    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            with open_binary(self._path) as file:
                for number, line in enumerate(file, 1):
                    # A path may hold any bytes.
                    if text := line.decode("utf-8", "surrogateescape").strip().removeprefix("\ufeff"):
                        yield number, text
        except Exception as error:  # storage libraries pass on whatever their HTTP client throws
            raise SourceError(f"{self._path}: cannot be read: {error}") from error

    def _entry(self, number: int, line: str, seen: Seen, wanted: Wanted) -> Iterator[Item]:
        if seen.clash(line, line) is None and wanted(line):
            yield file_item(line, absolute(line, self._root))


class JsonLines(TextList):
    """A JSON object a line, with the path or URL of an image in one column.

    The key is that of the key column, by default "key" or "id" where there is one, else the path. A line that comes
    twice is done once; different lines of one key are failures from the second on.
    """

    def __init__(self, path: str, options: SourceOptions):
        self._options = options
        super().__init__(path, options)

    def _entry(self, number: int, line: str, seen: Seen, wanted: Wanted) -> Iterator[Item]:
        where, path = f"{posixpath.basename(self._path)} line {number}", f"{absolute(self._path)}#{number}"
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not a JSON object")
            image = _value(row, self._options.image_column, IMAGE_COLUMNS, "image")
            key = _value(row, self._options.key_column, KEY_COLUMNS, "key", image)
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
                yield broken(again, path, "duplicate-key", f"the key {key!r} was given before; add a column 'key'")
        elif clash is None and wanted(key):
            columns = {name: row[name] for name in self._options.all_columns if row.get(name) is not None}
            yield file_item(key, absolute(image, self._root), columns)


def _value(row: dict[str, Any], asked: str | None, usual: tuple[str, ...], what: str, default: str = "") -> str:
    names = usual if asked is None else (asked,)
    for name in names:
        if isinstance(value := row.get(name), (str, int)) and value != "":
            return str(value)
    if default and asked is None:
        return default
    raise ValueError(f"no {what} column: none of {', '.join(names)} among {', '.join(row) or 'no columns'}")
