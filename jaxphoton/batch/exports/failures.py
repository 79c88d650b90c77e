"""The list of a run's failures: images without a result, and results that could not be written."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from jaxphoton.batch.errors import NOT_WRITTEN
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.lines import failure
from jaxphoton.batch.exports.rows import json_bytes
from jaxphoton.batch.journal.reading import JournalReader

_IN_MEMORY = 1 << 20


class FailureList:
    """Collects failures, and makes the list of them: JSON lines with key, error, reason and path. A context manager.

    Attributes:
      path: of the list. Where nothing has failed there is none: one that an earlier run of the journal left is removed.
      count: of its lines.
    """

    def __init__(self, path: Path):
        self.path, self.count = path, 0
        # Not in its place yet: while an output is written, the disk may be full.
        self._lines = tempfile.SpooledTemporaryFile(_IN_MEMORY)

    def add_failed(self, journal: str | os.PathLike) -> None:
        """Adds the images that have failed by a journal."""
        with JournalReader(journal) as reader:
            for record in reader.records():
                if record.status == "failed":
                    self._add(failure(record))

    def add_lost(self, key: str, path: str, fault: str) -> None:
        """Adds an image whose result is in the journal, and could not be written."""
        self._add({"key": key, "error": fault, "reason": NOT_WRITTEN, "path": path})

    def write(self) -> None:
        """Makes the list.

        Raises:
          OSError: it cannot be written, or the old one not removed.
        """
        if not self.count:
            if os.path.lexists(self.path):
                self.path.unlink()
            return
        self._lines.seek(0)
        with replacing(self.path) as file:
            shutil.copyfileobj(self._lines, file)

    def __enter__(self) -> FailureList:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def _add(self, line: dict[str, Any]) -> None:
        self._lines.write(json_bytes(line) + b"\n")
        self.count += 1
