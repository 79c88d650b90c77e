"""Reading a journal: every line, or the last record of each key."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from jaxphoton.batch.errors import JournalError
from jaxphoton.batch.journal.keymap import KeyMap
from jaxphoton.batch.journal.record import Header, Record, from_line
from jaxphoton.files import NotRegular, first_bytes, open_regular

_SIGNATURE = b'{"jaxphoton_journal": '


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that cannot be read. Its image counts as not done."""

    line: int
    fault: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.fault}"


class Line(NamedTuple):
    """One line, where it starts in the file, and what it is."""

    offset: int
    entry: Header | Record | Damage


def scan(file: IO[bytes]) -> Iterator[Line]:
    """The lines from where `file` stands, which is its start; a last one without its line end is left out."""
    offset = 0
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            return
        try:
            entry = from_line(line)
        except ValueError as error:
            entry = Damage(number, str(error))
        yield Line(offset, entry)
        offset += len(line)


def check_signature(file: IO[bytes], path: Path) -> None:
    """Makes sure that a file with anything in it is a journal, so that no other file is ever changed.

    Raises:
      JournalError: it is something else.
    """
    start = file.read(len(_SIGNATURE))
    file.seek(0)
    if not _SIGNATURE.startswith(start):
        raise JournalError(f"{path} is not a jaxphoton journal; it is left as it is")


def is_journal(path: str | os.PathLike) -> bool:
    """Whether there is a file that begins as a journal does."""
    return first_bytes(path, len(_SIGNATURE)) == _SIGNATURE


def latest_header(path: str | os.PathLike) -> Header | None:
    """What the settings of a journal were at its end; None where there is no journal. Other lines are not read."""
    if not is_journal(path):
        return None
    latest = None
    with open(path, "rb") as file:
        for line in file:
            if line.startswith(_SIGNATURE) and line.endswith(b"\n"):
                with contextlib.suppress(ValueError):
                    latest = from_line(line)
    return latest if isinstance(latest, Header) else None


class JournalReader:
    """A journal to read; it may be growing meanwhile.

    Memory: 24 to 48 bytes for each key after the first call of `records` or `get`. A context manager.

    Args:
      index: the offset of the last record of each key, doubled, and 1 more if its status is "ok"; without one it is
        made at the first call.

    Attributes:
      header: the latest: what its settings were at the end.
      damage: lines that could not be read; complete after the first call of `records` or `get`.

    Raises:
      JournalError: it does not exist, or is no journal.
    """

    def __init__(self, path: str | os.PathLike, index: KeyMap | None = None):
        self.path = Path(path)
        try:
            self._file = open_regular(self.path)
        except NotRegular:
            raise JournalError(f"{self.path} is no regular file") from None
        except (OSError, ValueError) as error:
            raise JournalError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from error
        self.damage: list[Damage] = []
        self._index = index
        try:
            check_signature(self._file, self.path)
            first = next(scan(self._file), None)
            if first is None or not isinstance(first.entry, Header):
                fault = first.entry if first and isinstance(first.entry, Damage) else "it is empty"
                raise JournalError(f"{self.path}: no header: {fault}")
        except JournalError:
            self._file.close()
            raise
        self.header = first.entry

    def records(self) -> Iterator[Record]:
        """The last record of each key, in the order of the lines."""
        index = self._indexed()
        with open(self.path, "rb") as file:
            for offset, entry in scan(file):
                if isinstance(entry, Record) and index.get(entry.key) == 2 * offset + (entry.status == "ok"):
                    yield entry

    def __contains__(self, key: str) -> bool:
        """Whether there is a record of `key`."""
        return key in self._indexed()

    def get(self, key: str) -> Record | None:
        """The last record of one key, None where there is none."""
        found = self._indexed().get(key)
        if found is None:
            return None
        self._file.seek(found >> 1)
        entry = from_line(self._file.readline())
        assert isinstance(entry, Record)
        return entry

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _indexed(self) -> KeyMap:
        if self._index is None:
            self._index = KeyMap("Q")
            self._file.seek(0)
            for offset, entry in scan(self._file):
                if isinstance(entry, Record):
                    self._index[entry.key] = 2 * offset + (entry.status == "ok")
                elif isinstance(entry, Header):
                    self.header = entry
                else:
                    self.damage.append(entry)
        return self._index
