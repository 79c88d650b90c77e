"""Image prefixes shared between questions. Random use of the cache is tested in test_pages."""

from __future__ import annotations

import pytest

from jaxphoton.engine.pages import PageAllocator, PrefixCache


class Pool:
    def __init__(self, pages: int = 21):
        self.allocator = PageAllocator(pages)
        self.cache = PrefixCache(self.allocator)

    def insert(self, key: object, pages: int = 4, users: int = 1) -> list[int]:
        taken = self.allocator.allocate(pages)
        self.cache.insert(key, taken)
        for _ in range(1, users):
            self.cache.acquire(key)
        if not users:
            self.cache.release(key)
        return taken


@pytest.fixture
def pool() -> Pool:
    return Pool()


def test_an_empty_cache_has_no_match_and_asking_does_not_enter_anything(pool):
    assert pool.cache.acquire("a") is None
    assert len(pool.cache) == 0 and pool.cache.pages == 0 and "a" not in pool.cache


def test_a_hit_gives_the_same_pages_and_counts_its_users(pool):
    pages = pool.insert("a")
    assert pool.cache.acquire("a") == pages
    assert pool.cache.users("a") == 2 and pool.cache.users("b") == 0


def test_a_second_insert_is_refused_and_keeps_the_first(pool):
    pages = pool.insert("a")
    with pytest.raises(ValueError, match="already"):
        pool.insert("a")
    assert pool.cache.acquire("a") == pages


def test_releasing_more_often_than_acquiring_is_refused(pool):
    pool.insert("a", users=0)
    for key in ("a", "never seen"):
        with pytest.raises(ValueError, match="no user"):
            pool.cache.release(key)


def test_keys_are_the_pixels(pool):
    pages = pool.insert(b"pixels")
    assert pool.cache.acquire(b"other pixels") is None
    assert pool.cache.acquire((b"pixels", 7)) is None  # of request 7 alone
    assert pool.cache.acquire(b"pixels") == pages


def test_a_prefix_without_users_stays_until_its_room_is_needed(pool):
    pages = pool.insert("a", users=0)
    assert pool.cache.evictable == 4 and pool.cache.acquire("a") == pages and pool.cache.evictable == 0


def test_eviction_leaves_used_prefixes_alone(pool):
    pool.insert("used")
    pool.insert("unused", users=0)
    assert pool.cache.evict(100) == 4
    assert "used" in pool.cache and "unused" not in pool.cache and pool.allocator.free == 16


def test_eviction_with_all_in_use_frees_nothing(pool):
    pool.insert("a"), pool.insert("b", users=2)
    assert pool.cache.evict(1) == 0 and pool.cache.pages == 8


def test_the_least_recently_used_goes_first(pool):
    for key in "abc":
        pool.insert(key, users=0)
    pool.cache.acquire("a"), pool.cache.release("a")  # a hit makes it the most recent
    assert pool.cache.evict(1) == 4 and "b" not in pool.cache
    assert pool.cache.evict(1) == 4 and "c" not in pool.cache
    assert "a" in pool.cache


def test_eviction_stops_when_enough_is_free(pool):
    pool.insert("a", 2, users=0), pool.insert("b", 3, users=0), pool.insert("c", 4, users=0)
    assert pool.cache.evict(3) == 5 and "c" in pool.cache


def test_asking_for_more_than_there_is_frees_what_there_is(pool):
    pool.insert("a", users=0)
    assert pool.cache.evict(100) == 4 and len(pool.cache) == 0 and pool.allocator.free == 20


def test_asking_for_nothing_evicts_nothing(pool):
    pool.insert("a", users=0)
    assert pool.cache.evict(0) == 0 and "a" in pool.cache


def test_a_prefix_whose_prefill_failed_is_discarded_with_its_pages(pool):
    pool.insert("a")
    pool.cache.discard("a")
    assert "a" not in pool.cache and pool.allocator.free == 20
    pool.insert("a")


def test_counts_stay_exact_through_misses_hits_and_evictions(pool):
    for round_ in range(3):
        for key in "abcd":
            if pool.cache.acquire(key) is None:
                if pool.allocator.free < 4:
                    pool.cache.evict(4 - pool.allocator.free)
                pool.insert(key)
        assert pool.cache.pages + pool.allocator.free == pool.allocator.usable, round_
        for key in "abcd":
            pool.cache.release(key)
        assert pool.cache.evictable == pool.cache.pages == 16
        pool.cache.evict(4 * round_)
