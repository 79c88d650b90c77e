"""Key/value pages of image prefixes, shared between questions about the same image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from jaxphoton.engine.pages import PageAllocator

PrefixKey = Hashable  # the digest of the pixels, with the request's number where prefixes are not shared


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
