"""Several sources as one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from jaxphoton.batch.sources.base import Seen, Skipped, Source, Wanted, count_keys, every
from jaxphoton.batch.sources.containers import below_common
from jaxphoton.batch.sources.item import Item, broken
from jaxphoton.messages import quoted


class Chain(Source):
    """One source after the other.

    Where no two images have the same key, the keys are those of the sources; else the folder or container that a
    source is in comes before all of its keys, as far as it is needed to tell them apart (`train/0001.png`,
    `val/0001.png`). All keys are looked through once to know that, before the first image.

    An image named by two of them is done once; two of one key that are not told apart so are a failure from the second
    on.

    Args:
      skipped: what the inputs themselves have led to.
    """

    def __init__(self, sources: list[Source], skipped: Skipped | None = None):
        super().__init__()
        self._sources, self._given = sources, skipped or Skipped()
        self.skipped.add(self._given)
        self._known: list[str] | None = None

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        seen, files = Seen(), Seen()
        prefixes = self._prefixes()
        skipped = Skipped()
        skipped.add(self._given)
        for prefix, source in zip(prefixes, self._sources, strict=True):
            if source.plain:
                yield from self._files(source, prefix, seen, files, wanted)
            else:
                yield from self._entries(source, prefix, seen, wanted)
            skipped.add(source.skipped)
        self.skipped = skipped

    def columns(self, needed: Collection[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for source in self._sources for name in source.columns(needed)))

    def count(self) -> int | None:
        return None if any(source.count() is None for source in self._sources) else count_keys(self)

    def _files(self, source: Source, prefix: str, seen: Seen, files: Seen, wanted: Wanted) -> Iterator[Item]:
        """Of a source whose items are files."""
        for item in source.items():
            if files.clash(item.path, item.path) is not None:
                continue
            key = prefix + item.key
            if seen.clash(key, item.path) is not None:
                again = f"{key} ({item.path})"
                if wanted(again):
                    yield broken(again, item.path, "duplicate-key", _fault(key))
            elif wanted(key):
                yield replace(item, key=key)

    def _entries(self, source: Source, prefix: str, seen: Seen, wanted: Wanted) -> Iterator[Item]:
        """Of one that must be told what is wanted before it reads."""
        clashed: list[Item] = []

        def first(key: str) -> bool:
            key = prefix + key
            if seen.clash(key, f"{id(source)}") is None:
                return wanted(key)
            again = f"{key} ({source.place})"
            if wanted(again):
                clashed.append(broken(again, source.place or "", "duplicate-key", _fault(key)))
            return False

        for item in source.items(first):
            yield replace(item, key=prefix + item.key)
            yield from clashed
            clashed.clear()
        yield from clashed

    def _prefixes(self) -> list[str]:
        """What is put before the keys of each source: nothing, its place, or that and its number; the first that
        helps."""
        if self._known is None:
            places = _places(self._sources)
            numbered = [place and f"{place}{number}/" for number, place in enumerate(places, 1)]
            tried = ([""] * len(places), places, numbered)
            self._known = next((prefixes for prefixes in tried if not self._clash(prefixes)), places)
        return self._known

    def _clash(self, prefixes: list[str]) -> bool:
        """Whether two images have the same key. What comes again in one source is that source's own matter."""
        keys, images, found = Seen(), Seen(), False
        for prefix, source in zip(prefixes, self._sources, strict=True):
            own = Seen()

            def note(key: str, identity: str, prefix: str = prefix, own: Seen = own) -> None:
                nonlocal found
                if images.clash(identity, identity) is None and own.clash(key, "") is None:
                    found = keys.clash(prefix + key, identity) is not None or found

            source.identify(note)
            if found:
                return True
        return False


def _places(sources: list[Source]) -> list[str]:
    """What tells the places of sources apart, with "/" at the end; "" for those without one."""
    placed = [source.place for source in sources if source.place is not None]
    names = iter(below_common(placed) if placed else [])
    return ["" if source.place is None or not (name := next(names)) else f"{name}/" for source in sources]


def _fault(key: str) -> str:
    return f"another image has the key {quoted(key)} too: run them separately"
