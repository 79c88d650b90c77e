"""Which items of a source are to be done: a shard, the first few, those not done yet; and reading them ahead."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.journal.keymap import digest
from jaxphoton.batch.sources.base import EndOfSelection, Source, count_keys, every
from jaxphoton.batch.sources.item import Item

In = TypeVar("In")
Out = TypeVar("Out")

# Items that may be handed on behind one that is not there yet: whoever wants their results in order has to hold those.
WINDOW = 4096


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a source that does not change when a run is resumed.

    Shards are disjoint, and together the whole. Where a source has at least as many containers (tar, parquet) as
    there are shards, a shard is every `count`-th container; else it is picked by a hash of the keys, so that it stays
    the same when images are added.

    Attributes:
      shard: (index, count), the index from 0.
      limit: how many items at most, the first of the shard.
    """

    shard: tuple[int, int] = (0, 1)
    limit: int | None = None

    def __post_init__(self):
        index, count = self.shard
        if not 0 <= index < count:
            raise SourceError(f"shard {index}/{count}: the first number must be from 0 to {count - 1}")
        if self.limit is not None and self.limit < 1:
            raise SourceError(f"limit must be at least 1, got {self.limit}")

    def items(self, source: Source, done: Callable[[str], bool] = lambda key: False) -> Iterator[Item]:
        """The selected items that are not done; those done count towards the limit, but are not read."""
        part, _ = self.part(source)
        mine = self._mine(source)
        left = self.limit

        def wanted(key: str) -> bool:
            nonlocal left
            if not mine(key):
                return False
            if left is not None:
                if left == 0:
                    raise EndOfSelection
                left -= 1
            return not done(key)

        try:
            yield from part.items(wanted)
        except EndOfSelection:
            return

    def count(self, source: Source) -> int | None:
        """How many items are selected, those done included; None if only reading everything would tell."""
        part, by_key = self.part(source)
        total = part.count()
        if total is not None and by_key:
            total = count_keys(part, self._mine(source))
        return total if total is None or self.limit is None else min(total, self.limit)

    def part(self, source: Source) -> tuple[Source, bool]:
        """The containers of this shard, and whether it must pick keys in them too."""
        if self.shard == (0, 1):
            return source, False
        part = source.shard(*self.shard)
        return part or source, part is None

    def _mine(self, source: Source) -> Callable[[str], bool]:
        """Whether a key of the `part` of a source is this shard's."""
        _, by_key = self.part(source)
        return (lambda key: in_shard(key, self.shard)) if by_key else every


def in_shard(key: str, shard: tuple[int, int]) -> bool:
    """Whether a key falls to shard (index, count) of a source that is cut by keys."""
    index, count = shard
    return digest(key) % count == index


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8).

    Raises:
      SourceError: another form, or an index that is not below the count.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise SourceError(f"shard {text!r} is not of the form i/n, such as 0/8")
    index, count = int(found[1]), int(found[2])
    Selection((index, count))
    return index, count


def read_ahead(
    items: Iterable[In],
    read: Callable[[In], Out],
    slow: Callable[[In], bool],
    threads: int = 48,
    window: int = WINDOW,
) -> Generator[tuple[int, Out], None, None]:
    """(place, `read(item)`) of every item, each as soon as it is there: one that takes long holds up no other, until
    `window` items have gone past it. The slow ones are read in threads, and as many of them are held at most. Closing
    the iterator waits for those under way.

    Args:
      threads: so many that do not answer stop all reading until they are given up.
    """
    done: SimpleQueue[Future[Out]] = SimpleQueue()
    under_way: dict[Future[Out], int] = {}  # in the order of their places

    def take() -> tuple[int, Out]:
        future = done.get()
        return under_way.pop(future), future.result()

    with ThreadPoolExecutor(threads, thread_name_prefix="jaxphoton-read") as pool:
        try:
            for place, item in enumerate(items):
                while under_way and place - next(iter(under_way.values())) >= window:
                    yield take()
                if slow(item):
                    future = pool.submit(read, item)
                    under_way[future] = place
                    future.add_done_callback(done.put)
                else:
                    yield place, read(item)
                while len(under_way) >= threads or not done.empty():
                    yield take()
            while under_way:
                yield take()
        finally:
            for future in under_way:
                future.cancel()
