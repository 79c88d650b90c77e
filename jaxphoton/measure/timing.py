"""Device time without a profiler: work enqueued back to back, warm-up first, medians, variants taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxphoton.engine.device import memory_of

BATCH_SECONDS = 0.1
BATCHES = 5
MOST_LAUNCHES = 300


def device_seconds(launch: Callable[[], Any], batch: float = BATCH_SECONDS) -> float:
    """Device seconds of one `launch`, which enqueues work and returns some of its results without waiting; `batch`
    seconds of it are enqueued between two waits.

    Many are enqueued before the last is waited for, so that the host's share is hidden wherever a launch costs the
    host less than the device.
    """
    return interleaved({"": launch}, batch)[""]


def interleaved(launches: Mapping[str, Callable[[], Any]], batch: float = BATCH_SECONDS) -> dict[str, float]:
    """The same for several variants that take turns (A B C A B C ...): what drifts hits all of them."""
    counts = {name: _count(launch, batch) for name, launch in launches.items()}
    spent: dict[str, list[float]] = {name: [] for name in launches}
    for _ in range(BATCHES):
        for name, launch in launches.items():
            spent[name].append(_batch(launch, counts[name]) / counts[name])
    return {name: statistics.median(seconds) for name, seconds in spent.items()}


def _count(launch: Callable[[], Any], batch: float) -> int:
    """How many launches make a batch; warms up."""
    _batch(launch, 2)
    once = _batch(launch, 2) / 2
    return max(2, min(MOST_LAUNCHES, int(batch / once)))


def _batch(launch: Callable[[], Any], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        last = launch()
    jax.block_until_ready(last)
    return time.perf_counter() - start


def memory_limit() -> int | None:
    """Bytes of device memory that arrays may take; None where nobody says."""
    return memory_of(jax.local_devices()[0])[0]


def copy_bandwidth() -> float:
    """Bytes a second of a device copy of up to 4 GB of random data, read and written bytes counted."""
    limit = memory_limit()
    size = 2**26 if limit is None else min(2**32, limit // 8)
    x = jax.random.uniform(jax.random.key(0), (size // 4,))
    copy = jax.jit(lambda x: x + jnp.float32(1))
    return 2 * x.nbytes / device_seconds(lambda: copy(x))
