"""Pages of the key/value pool: who holds how many, exactly; and those of image prefixes, which questions share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

TRASH_PAGE = 0  # Padding and finished rows write here; nobody reads it.

# Of all ids up to the end of the image block, the digests of the pixels and of the adapter, with the request's number
# where prefixes are not shared.
PrefixKey = Hashable


class PageAllocator:
    """Hands out page numbers 1 .. pages - 1.

    Freed pages are reused last in, first out: the pool's cold end stays untouched when the load is light.

    Attributes:
      usable: all pages that can be held at once.
    """

    def __init__(self, pages: int):
        if pages < 2:
            raise ValueError(f"a pool needs at least 2 pages (page {TRASH_PAGE} belongs to nobody), got {pages}")
        self.pages, self.usable = pages, pages - 1
        self._free = list(range(pages - 1, TRASH_PAGE, -1))
        self._held: set[int] = set()

    @property
    def free(self) -> int:
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Takes `count` pages.

        Raises:
          ValueError: fewer are free; nothing is taken then.
        """
        if not 0 <= count <= len(self._free):
            raise ValueError(f"{count} pages asked for, {len(self._free)} free")
        taken = [self._free.pop() for _ in range(count)]
        self._held.update(taken)
        return taken

    def release(self, pages: Iterable[int]) -> None:
        """Gives pages back.

        Raises:
          ValueError: a page that is not held.
        """
        for page in pages:
            if page not in self._held:
                raise ValueError(f"page {page} is not held")
            self._held.remove(page)
            self._free.append(page)


@dataclass(slots=True)
class _Entry:
    pages: list[int]
    users: int


class PrefixCache:
    """Whole pages by key, reference-counted; pages without a user stay until their room is needed (least recently
    used first).

    A prefix is entered when its prefill is launched, not when it is done: programs run in order, so whoever is
    launched later may read it.
    """

    def __init__(self, allocator: PageAllocator):
        self._allocator = allocator
        self._entries: OrderedDict[PrefixKey, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: PrefixKey) -> bool:
        return key in self._entries

    @property
    def pages(self) -> int:
        """Pages held, used or not."""
        return sum(len(entry.pages) for entry in self._entries.values())

    @property
    def evictable(self) -> int:
        """Pages that no live sequence uses."""
        return sum(len(entry.pages) for entry in self._entries.values() if not entry.users)

    def users(self, key: PrefixKey) -> int:
        return self._entries[key].users if key in self._entries else 0

    def acquire(self, key: PrefixKey) -> list[int] | None:
        """The pages of a prefix, now with one more user; None if it is not there."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.users += 1
        self._entries.move_to_end(key)
        return entry.pages

    def insert(self, key: PrefixKey, pages: list[int]) -> None:
        """Enters freshly allocated pages with one user; the cache owns them from now on.

        Raises:
          ValueError: the key is there already.
        """
        if key in self._entries:
            raise ValueError("this prefix is in the cache already")
        self._entries[key] = _Entry(pages, users=1)

    def release(self, key: PrefixKey) -> None:
        """One user less.

        Raises:
          ValueError: the prefix has no user.
        """
        entry = self._entries.get(key)
        if entry is None or not entry.users:
            raise ValueError("this prefix has no user")
        entry.users -= 1

    def discard(self, key: PrefixKey) -> None:
        """Removes a prefix whose prefill failed, and frees its pages; it may have the one user that failed."""
        self._allocator.release(self._entries.pop(key).pages)

    def evict(self, pages: int) -> int:
        """Frees unused prefixes, oldest use first, until `pages` are freed or none is left; returns the count."""
        freed = 0
        for key in [key for key, entry in self._entries.items() if not entry.users]:
            if freed >= pages:
                break
            entry = self._entries.pop(key)
            self._allocator.release(entry.pages)
            freed += len(entry.pages)
        return freed
