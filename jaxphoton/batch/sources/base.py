"""What every source offers, and the options of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from jaxphoton.batch.journal.keymap import KeyMap, digest
from jaxphoton.batch.sources.globs import Excluded
from jaxphoton.batch.sources.item import Item
from jaxphoton.batch.sources.retry import RETRY, RetryPolicy

_KINDS = 6  # named; the rest are "other"


@dataclass(slots=True)
class Skipped:
    """What a source has passed over.

    Attributes:
      files: by suffix, or "hidden", "excluded", "without a suffix".
      folders: left out as a whole, by name.
      samples: of tars, those without an image.
    """

    files: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    samples: int = 0

    def add(self, other: Skipped) -> None:
        self.files.update(other.files)
        self.folders.update(other.folders)
        self.samples += other.samples

    def lines(self) -> list[str]:
        """For people; empty if there is nothing to say."""
        lines = []
        if total := self.files.total():
            lines.append(f"{total:,} file{'s' * (total != 1)} passed over: {_listed(self.files)}")
        if total := self.folders.total():
            lines.append(f"{total:,} folder{'s' * (total != 1)} left out: {_listed(self.folders)}")
        if self.samples:
            lines.append(f"{self.samples:,} sample{'s' * (self.samples != 1)} without an image passed over")
        return lines


def _listed(counts: Counter[str]) -> str:
    kinds = sorted(counts.items(), key=lambda kind: (-kind[1], kind[0]))
    named = [f"{number:,} {name[:40]}" for name, number in kinds[:_KINDS]]
    if rest := sum(number for _, number in kinds[_KINDS:]):
        named.append(f"{rest:,} other")
    return ", ".join(named)


Wanted = Callable[[str], bool]


# Entries that are looked at to find the names of columns.
LOOKED_AT = 100


class EndOfSelection(Exception):
    """Raised by a `Wanted` predicate: no key from here on is wanted. Not an error."""


def every(key: str) -> bool:
    """The predicate that wants all."""
    return True


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How the entries of a source are read.

    Attributes:
      image_column: where the image is: a column of `.jsonl` (path or URL) or `.parquet` (bytes, struct of bytes and
        path, path or URL), the extension of a member in a `.tar` ("input.jpg"). None: the first usual name found.
      key_column: a column whose value names the entry; by default the path (`.jsonl`) or the row number (`.parquet`).
      columns: taken along as `Item.columns` where an entry has them. In a `.tar`: an extension ("txt") for a member's
        text, or a field of the sample's `.json` member.
      required_columns: taken along too; a table without them is refused, an entry without them is a failure.
      root: folder or address that relative paths in `.txt`, `.jsonl` and `.parquet` start from; by default that of the
        file itself.
      exclude: globs of files and folders to leave out, see `Excluded`.
      retry: with addresses.
    """

    image_column: str | None = None
    key_column: str | None = None
    columns: tuple[str, ...] = ()
    required_columns: tuple[str, ...] = ()
    root: str | None = None
    exclude: tuple[str, ...] = ()
    retry: RetryPolicy = RETRY

    @property
    def all_columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.columns, *self.required_columns)))

    def kept(self, wanted: Wanted, skipped: Skipped) -> Wanted:
        """`wanted`, which is not even asked about keys that are excluded; they are counted."""
        if not self.exclude:
            return wanted
        excluded = Excluded(self.exclude)

        def kept(key: str) -> bool:
            if excluded.key(key):
                skipped.files["excluded"] += 1
                return False
            return wanted(key)

        return kept


class Source(ABC):
    """Images by key, in an order that is the same every time.

    Nothing is read before it is asked for, and nothing but the current entries is held. An entry that cannot be
    used is an item whose `read` raises; only what concerns the whole source raises here.

    Attributes:
      place: the folder, or the container without its suffix, that the keys start from; None where they are paths.
      skipped: what was passed over by `items` that have come to their end; another thread may be counting meanwhile.
      plain: the items are files with nothing beside them, so that one that comes again under another key is the same.
    """

    place: str | None = None
    plain = False

    def __init__(self):
        self.skipped = Skipped()

    @abstractmethod
    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        """The wanted items.

        Args:
          wanted: called with each key, once and in order, before anything of the entry is read.

        Raises:
          SourceError: the source itself cannot be used.
        """

    def count(self) -> int | None:
        """How many items there are, None where only reading everything would tell.

        It reads names, line ends or footers and no image: for a long folder listing, call it from a thread.
        """
        return None

    def columns(self, needed: Collection[str]) -> tuple[str, ...]:
        """Names of columns, as far as the first few entries show them; () where entries have none.

        Args:
          needed: once these are found, no further entry is looked at.
        """
        return ()

    def shard(self, index: int, count: int) -> Source | None:
        """Whole containers for shard `index` of `count`; None where a shard must pick single keys."""
        return None

    def identify(self, note: Callable[[str, str], None]) -> None:
        """Calls `note(key, identity)` for each item; two of one identity are the same image. Reads no image."""
        if self.plain:
            for item in self.items():
                note(item.key, item.path)
            return

        def wanted(key: str) -> bool:
            note(key, f"{id(self)}/{key}")
            return False

        for _ in self.items(wanted):
            pass


def count_keys(source: Source, chosen: Wanted = every) -> int:
    """How many items there are with a chosen key; goes through all keys, and reads no image."""
    total = 0

    def wanted(key: str) -> bool:
        nonlocal total
        total += chosen(key)
        return False

    for _ in source.items(wanted):
        pass
    return total


class Seen:
    """Finds keys that come twice; memory as `KeyMap`."""

    def __init__(self):
        self._identities = KeyMap("Q")

    def clash(self, key: str, identity: str) -> bool | None:
        """None for a new key, False for the same entry again, True for another entry of the same key."""
        number = digest(identity)
        before = self._identities.get(key)
        if before is None:
            self._identities[key] = number
            return None
        return before != number
