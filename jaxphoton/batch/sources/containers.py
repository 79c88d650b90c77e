"""Sources that are files with many images in each."""

from __future__ import annotations

import copy

from jaxphoton.batch.sources.base import Source, SourceOptions
from jaxphoton.batch.sources.patterns import common_folder, named
from jaxphoton.batch.sources.skipped import Skipped


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

    def shard(self, index: int, count: int) -> Source | None:
        if len(self.parts) < count:
            return None
        if (index, count) not in self._shards:
            part = copy.copy(self)
            part.parts, part.skipped = self.parts[index::count], Skipped()
            self._shards[index, count] = part
        return self._shards[index, count]
