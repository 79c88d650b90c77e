"""Who holds how many pages."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jaxphoton.engine.pages import TRASH_PAGE, PageAllocator, PrefixCache


def test_allocate_takes_exactly_so_many_pages_and_never_one_twice():
    allocator = PageAllocator(10)
    first, second = allocator.allocate(4), allocator.allocate(3)
    assert len(first) == 4 and len(second) == 3 and len(set(first + second)) == 7
    assert allocator.free == 2 and allocator.usable == 9


def test_page_0_belongs_to_nobody():
    allocator = PageAllocator(8)
    assert TRASH_PAGE == 0 and sorted(allocator.allocate(7)) == list(range(1, 8))


def test_a_pool_that_has_no_page_to_give_is_refused():
    for pages in (-1, 0, 1):
        with pytest.raises(ValueError, match=f"at least 2 pages .* got {pages}"):
            PageAllocator(pages)


def test_more_pages_than_are_free_are_refused_and_none_is_taken():
    allocator = PageAllocator(5)
    allocator.allocate(2)
    with pytest.raises(ValueError, match="3 pages asked for, 2 free"):
        allocator.allocate(3)
    assert allocator.free == 2


def test_the_last_page_can_be_taken():
    allocator = PageAllocator(4)
    allocator.allocate(3)
    assert allocator.free == 0 and allocator.allocate(0) == []


def test_a_negative_number_of_pages_is_refused():
    with pytest.raises(ValueError, match="-1 pages"):
        PageAllocator(4).allocate(-1)


def test_a_page_that_is_not_held_cannot_be_released():
    allocator = PageAllocator(4)
    (page,) = allocator.allocate(1)
    allocator.release([page])
    for wrong in (page, TRASH_PAGE, 99):
        with pytest.raises(ValueError, match=f"page {wrong} is not held"):
            allocator.release([wrong])
    assert allocator.free == 3


def test_freed_pages_are_reused_first():
    allocator = PageAllocator(100)
    first = allocator.allocate(3)
    allocator.release(first)
    assert set(allocator.allocate(3)) == set(first)


class Books(RuleBasedStateMachine):
    """Pages and prefix cache together: every page is free, cached or privately held, and in one place only."""

    def __init__(self):
        super().__init__()
        self.allocator = PageAllocator(20)
        self.cache = PrefixCache(self.allocator)
        self.private: list[list[int]] = []
        self.entries: dict[int, list[int]] = {}
        self.users: dict[int, int] = {}
        self.order: list[int] = []  # keys, least recently used first

    @rule(count=st.integers(0, 8))
    def allocate(self, count: int) -> None:
        if count > self.allocator.free:
            with pytest.raises(ValueError, match="asked for"):
                self.allocator.allocate(count)
        else:
            self.private.append(self.allocator.allocate(count))

    @rule(data=st.data())
    def release_pages(self, data: st.DataObject) -> None:
        if self.private:
            self.allocator.release(self.private.pop(data.draw(st.integers(0, len(self.private) - 1))))

    @rule(key=st.integers(0, 4), count=st.integers(1, 6))
    def insert(self, key: int, count: int) -> None:
        if key in self.entries:
            with pytest.raises(ValueError, match="in the cache already"):
                self.cache.insert(key, [])
        elif count <= self.allocator.free:
            self.entries[key] = self.allocator.allocate(count)
            self.cache.insert(key, self.entries[key])
            self.users[key] = 1
            self.order.append(key)

    @rule(key=st.integers(0, 4))
    def acquire(self, key: int) -> None:
        assert self.cache.acquire(key) == self.entries.get(key)
        if key in self.entries:
            self.users[key] += 1
            self.order.remove(key)
            self.order.append(key)

    @rule(key=st.integers(0, 4))
    def release(self, key: int) -> None:
        if self.users.get(key):
            self.cache.release(key)
            self.users[key] -= 1
        else:
            with pytest.raises(ValueError, match="no user"):
                self.cache.release(key)

    @rule(key=st.integers(0, 4))
    def discard(self, key: int) -> None:
        if key in self.entries and self.users[key] <= 1:
            self.cache.discard(key)
            self._forget(key)

    @rule(pages=st.integers(0, 25))
    def evict(self, pages: int) -> None:
        free = self.allocator.free
        expected = 0
        for key in [key for key in self.order if not self.users[key]]:
            if expected >= pages:
                break
            expected += len(self.entries[key])
            self._forget(key)
        assert self.cache.evict(pages) == expected == self.allocator.free - free

    def _forget(self, key: int) -> None:
        del self.entries[key], self.users[key]
        self.order.remove(key)

    @invariant()
    def every_page_is_in_one_place(self) -> None:
        held = [page for pages in (*self.private, *self.entries.values()) for page in pages]
        assert len(set(held)) == len(held) and all(0 < page < 20 for page in held)
        assert len(held) + self.allocator.free == self.allocator.usable

    @invariant()
    def the_counts_are_exact(self) -> None:
        assert len(self.cache) == len(self.entries)
        assert self.cache.pages == sum(map(len, self.entries.values()))
        assert self.cache.evictable == sum(len(self.entries[key]) for key, users in self.users.items() if not users)
        assert all((key in self.cache) == (key in self.entries) for key in range(5))
        assert all(self.cache.users(key) == self.users.get(key, 0) for key in range(5))


TestBooks = Books.TestCase
