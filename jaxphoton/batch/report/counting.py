"""Counts over any number of records in bounded memory."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_OPENING_WORDS, _OPENING_LENGTH = 3, 40
_DISTINCT = 20_000
_LONGEST = 10_000  # longer texts count as this long
_BINS = 24


class Frequent:
    """How often things come: exact up to `limit` different ones, beyond that too low by at most additions / limit
    (the algorithm of Misra and Gries, 1982)."""

    def __init__(self, limit: int = _DISTINCT):
        self._counts: Counter[str] = Counter()
        self._limit = limit

    def add(self, thing: str, times: int = 1) -> None:
        self._counts[thing] += times
        if len(self._counts) > self._limit:
            least = min(self._counts.values())
            self._counts = Counter({each: count - least for each, count in self._counts.items() if count > least})

    def most_common(self, number: int | None = None) -> list[tuple[str, int]]:
        """The most frequent first, those of one count by name."""
        ordered = sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return ordered[:number]


class Smallest(Generic[T]):
    """The things of the `limit` smallest ranks of all that were offered, whatever their order."""

    def __init__(self, limit: int):
        self._limit, self._offers = limit, 0
        self._heap: list[tuple[int, int, T]] = []

    def offer(self, rank: int, thing: T) -> None:
        self._offers += 1
        entry = (-rank, self._offers, thing)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    @property
    def offers(self) -> int:
        """How many things were offered."""
        return self._offers

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        """The smallest rank first."""
        return (thing for _, _, thing in sorted(self._heap, key=lambda entry: (-entry[0], entry[1])))


class Lengths:
    """How many words texts have."""

    def __init__(self):
        self._counts: Counter[int] = Counter()

    def add(self, words: int) -> None:
        self._counts[min(words, _LONGEST)] += 1

    def quantile(self, share: float) -> int:
        """The least number of words that this share of the texts does not exceed; 0 without texts."""
        left = share * self._counts.total()
        for words in sorted(self._counts):
            left -= self._counts[words]
            if left <= 0:
                return words
        return 0

    def histogram(self) -> tuple[int, list[int]]:
        """(width, counts): bin n holds the texts of n * width up to (n + 1) * width - 1 words; the last, all longer.

        The 99th percentile decides the width, lest one endless text squeeze all others into one bin.
        """
        top = self.quantile(0.99)
        width = next(width for exponent in range(9) for width in _nice(exponent) if top // width < _BINS)
        bins = [0] * (top // width + 1)
        for words, count in self._counts.items():
            bins[min(words // width, len(bins) - 1)] += count
        return width, bins


def _nice(exponent: int) -> tuple[int, int, int]:
    return 10**exponent, 2 * 10**exponent, 5 * 10**exponent


def opening(text: str) -> str:
    """The first three words in lower case, which show how alike captions begin."""
    return " ".join(text.split(maxsplit=_OPENING_WORDS)[:_OPENING_WORDS]).lower()[:_OPENING_LENGTH].rstrip(".,;: ")


def kind(note: str) -> str:
    """A note without its numbers, under which alike ones are counted."""
    return re.sub(r"\d+", "N", note)[:100]
