"""Images in parquet tables: bytes, the structs that `datasets` writes, or paths."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources.base import EndOfSelection, Seen, Skipped, SourceOptions, Wanted, count_keys, every
from jaxphoton.batch.sources.containers import Containers
from jaxphoton.batch.sources.item import Item, broken
from jaxphoton.batch.sources.remote import open_seekable
from jaxphoton.batch.sources.retry import RETRY, RetryPolicy
from jaxphoton.batch.sources.storage import is_remote, parent
from jaxphoton.batch.sources.values import image_item
from jaxphoton.messages import listed

IMAGE_COLUMNS = (
    "image",
    "images",
    "bytes",
    "img",
    "jpg",
    "png",
    "webp",
    "path",
    "image_path",
    "file_name",
    "url",
    "image_url",
    "image_bytes",
)
# Rows whose images are held at once.
_ROWS = 16


class Parquet(Containers):
    """The rows of one or more tables. Keys are `<table>/<row number>`, or the values of the key column.

    A table that cannot be read is one failing item, unless it is the first. Rows that are not wanted cost nothing
    where their whole row group is unwanted.

    Raises:
      SourceError: the first table cannot be read, or has no such columns.
    """

    def __init__(self, paths: list[str], options: SourceOptions):
        super().__init__(paths, options)
        try:
            with _open(paths[0], options.retry) as table:
                self._names = tuple(table.schema_arrow.names)
                _Columns(table.schema_arrow, options)
        except SourceError:
            raise
        except Exception as error:  # as in `items`
            raise SourceError(f"{paths[0]}: cannot be read as parquet: {error}") from error

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        seen, skipped = Seen(), Skipped()
        wanted = self._options.kept(wanted, skipped)
        for name, path in self.parts:
            try:
                with _open(path, self._options.retry) as table:
                    yield from _Rows(name, path, table, self._options, seen).items(wanted)
            except EndOfSelection:
                raise
            except Exception as error:  # storage libraries pass on whatever their HTTP client throws
                if wanted(name):
                    reason = "corrupt" if isinstance(error, (_arrow().ArrowException, ValueError)) else "unreadable"
                    yield broken(name, path, reason, f"cannot be read as parquet: {error}")
        self.skipped = skipped

    def columns(self, needed: Collection[str]) -> tuple[str, ...]:
        return self._names

    def count(self) -> int | None:
        if any(is_remote(path) for _, path in self.parts):
            return None
        if self._options.exclude:
            return count_keys(self)
        total = 0
        for _, path in self.parts:
            try:
                with _open(path, self._options.retry) as table:
                    total += table.metadata.num_rows
            except Exception:
                total += 1  # the failing item
        return total


class _Columns:
    """Which columns of a table are what.

    Raises:
      ValueError: one that is needed is missing.
    """

    def __init__(self, schema: Any, options: SourceOptions):
        asked = IMAGE_COLUMNS if options.image_column is None else (options.image_column,)
        self.image = next((name for name in asked if name in schema.names), "")
        self.key = options.key_column
        needed = [*([self.key] if self.key else []), *options.required_columns]
        lacking = [name for name in needed if name not in schema.names]
        if not self.image or lacking:
            what = f"column {lacking[0]!r}" if self.image else f"image column (none of {listed(asked)})"
            raise ValueError(f"no {what} among {listed(schema.names)}")
        self.carried = [name for name in options.all_columns if name in schema.names]


class _Rows:
    """The items of one open table."""

    def __init__(self, name: str, path: str, table: Any, options: SourceOptions, seen: Seen):
        self._name, self._path, self._table, self._seen = name, path, table, seen
        self._columns = _Columns(table.schema_arrow, options)
        self._required, self._retry = options.required_columns, options.retry
        self._root = parent(path) if options.root is None else options.root

    def items(self, wanted: Wanted) -> Iterator[Item]:
        first = 0
        for group in range(self._table.num_row_groups):
            rows, ended = self._wanted(group, first, wanted)
            if rows:
                yield from self._read(group, first, rows)
            if ended:
                raise EndOfSelection
            first += self._table.metadata.row_group(group).num_rows

    def _wanted(self, group: int, first: int, wanted: Wanted) -> tuple[dict[int, tuple[str, bool]], bool]:
        """Row number -> (key, whether it came before); and whether the selection has ended in this group."""
        rows: dict[int, tuple[str, bool]] = {}
        try:
            for row, (key, again) in enumerate(self._keys(group, first), first):
                if wanted(key):
                    rows[row] = key, again
        except EndOfSelection:
            return rows, True
        return rows, False

    def _keys(self, group: int, first: int) -> Iterator[tuple[str, bool]]:
        if self._columns.key is None:
            count = self._table.metadata.row_group(group).num_rows
            yield from ((f"{self._name}/{row}", False) for row in range(first, first + count))
            return
        values = self._table.read_row_group(group, columns=[self._columns.key]).column(0)
        for row, value in enumerate(values, first):
            where = f"{self._name}/{row}"
            key = where if value.as_py() is None else str(value.as_py())
            again = self._seen.clash(key, where) is not None
            yield f"{key} ({where})" if again else key, again

    def _read(self, group: int, first: int, rows: dict[int, tuple[str, bool]]) -> Iterator[Item]:
        columns = list(dict.fromkeys([self._columns.image, *self._columns.carried]))
        row = first
        for batch in self._table.iter_batches(_ROWS, row_groups=[group], columns=columns):
            for index in range(batch.num_rows):
                if row in rows:
                    key, again = rows[row]
                    fields = {name: batch.column(name)[index].as_py() for name in columns}
                    yield self._item(key, f"{self._path}#{row}", again, fields)
                row += 1

    def _item(self, key: str, where: str, again: bool, fields: dict[str, Any]) -> Item:
        if again:
            return broken(key, where, "duplicate-key", "its key was given before; use a key column without repeats")
        if lacking := [name for name in self._required if fields[name] is None]:
            return broken(key, where, "bad-entry", f"no value in column {lacking[0]!r}")
        carried = {name: fields[name] for name in self._columns.carried if fields[name] is not None}
        return image_item(fields[self._columns.image], key, where, self._root, self._retry, carried)


@contextmanager
def _open(path: str, retry: RetryPolicy = RETRY) -> Iterator[Any]:
    _arrow()
    from pyarrow.parquet import ParquetFile

    # Buffered, or the reader takes in the images of a whole row group, which may be gigabytes.
    with open_seekable(path, retry) as file, ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as table:
        yield table


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise SourceError("reading .parquet needs pyarrow: pip install 'jaxphoton[parquet]'") from error
    return pyarrow
