"""When the requests of a load arrive."""

from __future__ import annotations

import random
from collections.abc import Iterator


def poisson(rate: float, seed: int = 0) -> Iterator[float]:
    """Seconds from the start at which requests arrive independently of each other, `rate` a second on average."""
    random_ = random.Random(seed)
    now = 0.0
    while True:
        now += random_.expovariate(rate)
        yield now


def bursts(rate: float, size: int, seed: int = 0) -> Iterator[float]:
    """The same average rate, in groups of `size` that arrive together; the groups arrive as `poisson` does."""
    for when in poisson(rate / size, seed):
        for _ in range(size):
            yield when
