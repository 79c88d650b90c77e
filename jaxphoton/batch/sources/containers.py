"""Sources that are files with many images in each."""

from __future__ import annotations

import copy
from collections.abc import Callable

from jaxphoton.batch.sources.base import Source, SourceOptions
from jaxphoton.batch.sources.patterns import common_folder, named
from jaxphoton.batch.sources.skipped import Skipped
from jaxphoton.batch.sources.storage import is_remote


class Containers(Source):
    """One or more files, each with images.

    Attributes:
      parts: (name, absolute path) of each file; the name begins the keys of its images.
    """

    def __init__(self, paths: list[str], options: SourceOptions):
        super().__init__()
        self.parts, self._options = named(paths), options
        self.place = common_folder(paths)
        self._shards: dict[tuple[int, int], Source] = {}

    def identify(self, note: Callable[[str, str], None]) -> None:
        if not any(is_remote(path) for _, path in self.parts):
            super().identify(note)
            return
        # Its keys would be a download of everything. Those of two containers differ where the names of these do.
        for name, path in self.parts:
            note(f"{name}/", path)

    def shard(self, index: int, count: int) -> Source | None:
        if len(self.parts) < count:
            return None
        if (index, count) not in self._shards:
            part = copy.copy(self)
            part.parts, part.skipped = self.parts[index::count], Skipped()
            self._shards[index, count] = part
        return self._shards[index, count]
