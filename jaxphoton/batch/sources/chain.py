"""Several sources as one."""

from __future__ import annotations

from collections.abc import Iterator

from jaxphoton.batch.sources.base import Seen, Source, Wanted, every
from jaxphoton.batch.sources.item import Item, broken


class Chain(Source):
    """One source after the other. An image named by two of them is done once; two images of one key are a failure
    from the second on."""

    def __init__(self, sources: list[Source]):
        self._sources = sources

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        # The path of an item is known only once it exists, so the parts are asked for all they have.
        seen = Seen()
        for source in self._sources:
            for item in source.items():
                clash = seen.clash(item.key, item.path)
                if clash:
                    again = f"{item.key} ({item.path})"
                    if wanted(again):
                        fault = f"another image has the key {item.key!r} too: run them separately"
                        yield broken(again, item.path, "duplicate-key", fault)
                elif clash is None and wanted(item.key):
                    yield item

    def count(self) -> int | None:
        counts = [source.count() for source in self._sources]
        return None if None in counts else sum(count for count in counts if count is not None)
