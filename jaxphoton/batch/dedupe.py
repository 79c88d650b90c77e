"""Files that come more than once: asked about once, and answered everywhere."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Generic, TypeVar

from jaxphoton.batch.journal.keymap import KeyMap
from jaxphoton.batch.journal.reading import scan
from jaxphoton.batch.journal.record import Header, Record, from_line

_FOLLOWERS = 256

Follower = TypeVar("Follower")


class Dedupe(Generic[Follower]):
    """Knows the files of a run by their digest; memory as `KeyMap`. From any thread.

    Args:
      journal: of the run, whose results are taken up again; it may be growing.
    """

    def __init__(self, journal: Path):
        self._file = open(journal, "rb")
        self._done = KeyMap("Q")
        self._under_way: dict[str, list[Follower]] = {}
        self._changed = threading.Condition()
        for offset, entry in scan(self._file):
            if isinstance(entry, Header):
                self._done = KeyMap("Q")  # results of other settings are not taken over
            elif isinstance(entry, Record) and entry.sha256 and entry.status == "ok":
                self._done[entry.sha256] = offset

    def claim(self, sha256: str, follower: Follower) -> Record | bool:
        """The record of the same file; True if `follower` is the first of them, and has to be asked about; False if
        the first is still under way, and `finish` will hand `follower` out. Waits where very many follow."""
        with self._changed:
            offset = self._done.get(sha256)
            if offset is None and sha256 not in self._under_way:
                self._under_way[sha256] = []
                return True
            if offset is None:
                self._under_way[sha256].append(follower)
                self._changed.wait_for(lambda: len(self._under_way.get(sha256, ())) < _FOLLOWERS)
                return False
            self._file.seek(offset)
            record = from_line(self._file.readline())
            assert isinstance(record, Record)
            return record

    def finish(self, sha256: str, offset: int | None) -> list[Follower]:
        """The first is answered (its record at `offset` of the journal) or has failed (None): those that follow it."""
        with self._changed:
            if offset is not None:
                self._done[sha256] = offset
            self._changed.notify_all()
            return self._under_way.pop(sha256)

    def close(self) -> None:
        """Lets nobody wait any longer."""
        with self._changed:
            self._under_way.clear()
            self._changed.notify_all()
            self._file.close()
