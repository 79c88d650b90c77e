"""Counting in bounded memory."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.report.counting import Frequent, Lengths, Smallest, kind, opening


@given(st.lists(st.integers(0, 20)), st.integers(0, 8), st.randoms())
def test_smallest(ranks, limit, random):
    """The same ranks, in whatever order they were offered."""
    kept = Smallest[int](limit)
    random.shuffle(ranks)
    for rank in ranks:
        kept.offer(rank, rank)
    assert list(kept) == sorted(ranks)[:limit]
    assert (len(kept), kept.offers) == (min(limit, len(ranks)), len(ranks))


@given(st.lists(st.sampled_from("abcdefghij")), st.integers(1, 12))
def test_frequent(things, limit):
    frequent, exact = Frequent(limit), Counter(things)
    for thing in things:
        frequent.add(thing)
    counted = dict(frequent.most_common())
    assert len(counted) <= limit
    for thing, times in exact.items():
        assert times - len(things) / limit <= counted.get(thing, 0) <= times
    if len(exact) <= limit:
        assert counted == exact


@given(st.lists(st.integers(0, 3000), min_size=1))
def test_lengths(words):
    lengths = Lengths()
    for each in words:
        lengths.add(each)
    width, bins = lengths.histogram()
    assert sum(bins) == len(words) and len(bins) <= 24
    for n, count in enumerate(bins[:-1]):
        assert count == sum(n * width <= each < (n + 1) * width for each in words)
    assert lengths.quantile(0.5) == sorted(words)[(len(words) - 1) // 2]


def test_lengths_of_nothing():
    assert Lengths().histogram() == (1, [0])
    assert Lengths().quantile(0.5) == 0


def test_one_endless_text_does_not_squeeze_the_others():
    lengths = Lengths()
    for each in [*range(20, 40)] * 10 + [5000]:
        lengths.add(each)
    width, bins = lengths.histogram()
    assert width == 2 and bins[-1] == 21


def test_openings_and_kinds():
    assert opening("The image\nshows a dog.") == "the image shows"
    assert opening("Yes.") == "yes"
    assert opening(" ") == ""
    assert kind("first of 12 frames") == kind("first of 7 frames") == "first of N frames"
