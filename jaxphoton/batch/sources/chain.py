"""Several sources as one."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import replace

from jaxphoton.batch.sources.base import Seen, Source, Wanted, count_keys, every
from jaxphoton.batch.sources.item import Item, broken
from jaxphoton.batch.sources.patterns import below_common
from jaxphoton.batch.sources.skipped import Skipped


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
        self._known_prefixes: list[str] | None = None

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        seen, files = Seen(), Seen()
        prefixes = self._prefixes()
        self.skipped = Skipped()
        self.skipped.add(self._given)
        for prefix, source in zip(prefixes, self._sources, strict=True):
            if source.plain:
                yield from self._files(source, prefix, seen, files, wanted)
            else:
                yield from self._entries(source, prefix, seen, wanted)
            self.skipped.add(source.skipped)

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
        """What is put before the keys of each source."""
        if self._known_prefixes is None:
            self._known_prefixes = [""] * len(self._sources)
            if self._clash():
                placed = [number for number, source in enumerate(self._sources) if source.place is not None]
                names = _names([self._sources[number] for number in placed])
                for number, name in zip(placed, names, strict=True):
                    self._known_prefixes[number] = f"{name}/" if name else ""
        return self._known_prefixes

    def _clash(self) -> bool:
        """Whether two images have the same key."""
        if all(source.place is None for source in self._sources):
            return False  # the paths themselves
        seen, found = Seen(), False

        def note(key: str, identity: str) -> None:
            nonlocal found
            found = found or bool(seen.clash(key, identity))

        for source in self._sources:
            own = Seen()

            def first(key: str, identity: str, own: Seen = own) -> None:
                # What comes again in one source is that source's own matter.
                if own.clash(key, key) is None:
                    note(key, identity)

            source.identify(first)
        return found


def _names(sources: list[Source]) -> list[str]:
    """What tells sources of different places apart. Two of one place but not of one kind have their numbers too."""
    places = [source.place or "" for source in sources]
    names = below_common(places)
    first: dict[str, int] = {}
    for number, source in enumerate(sources):
        same = first.setdefault(places[number], number)
        if same != number and not (source.plain and sources[same].plain):
            names[number] = posixpath.join(names[number], str(number + 1))
    return names


def _fault(key: str) -> str:
    return f"another image has the key {key[:100]!r} too: run them separately"
