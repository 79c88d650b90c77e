"""Device time without a profiler: work enqueued back to back, warm-up first, medians, variants taking turns.

Data are random everywhere: a GPU multiplies zeros faster, and zeros hide what was never written.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxphoton.engine.places import memory_of

BATCH_SECONDS = 0.1
BATCHES = 5
MOST_LAUNCHES = 300
WARM_UP = 3


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


def pipelined(
    launch: Callable[[], Any], ask: Callable[[Any], object], take: Callable[[Any], object], steps: int
) -> tuple[float, float]:
    """Median seconds from step to step, and of the call of `launch` alone. One step is always under way: its output is
    asked for at once (`ask`), and waited for (`take`) when the next has been launched."""
    before, calls, ends = None, list[float](), list[float]()
    for _ in range(steps + WARM_UP):
        start = time.perf_counter()
        output = launch()
        calls.append(time.perf_counter() - start)
        ask(output)
        if before is not None:
            take(before)
        before = output
        ends.append(time.perf_counter())
    take(before)
    periods = [b - a for a, b in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False)]
    return statistics.median(periods), statistics.median(calls[WARM_UP:])


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


def noise(seed: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, scale: float = 1.0) -> jax.Array:
    """Uniform numbers in [-scale, scale), hashed from their indices and a seed uint32 []: one fused kernel without
    temporaries, so that arrays of many gigabytes can be filled."""
    word = jnp.broadcast_to(seed * jnp.uint32(0x9E3779B9) + jnp.uint32(0x85EBCA6B), shape)
    for axis in range(len(shape)):
        word = word ^ lax.broadcasted_iota(jnp.uint32, shape, axis)
        for factor, shift in ((0x7FEB352D, 15), (0x846CA68B, 16)):
            word = (word ^ (word >> jnp.uint32(shift))) * jnp.uint32(factor)
    uniform = (word >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2**-23) - 1.0
    return (jnp.float32(scale) * uniform).astype(dtype)


def random_array(shape: tuple[int, ...], dtype: DTypeLike, seed: int = 0) -> jax.Array:
    """`noise` on the device; the seed is an argument, lest the compiler computes the numbers itself."""
    return jax.jit(noise, static_argnums=(1, 2))(np.uint32(seed), shape, jnp.dtype(dtype))


def matmul_rate() -> float:
    """Operations a second of a large bfloat16 matrix product."""
    size = 512 if memory_limit() is None else 8192
    a, b = (random_array((size, size), jnp.bfloat16, seed) for seed in (1, 2))
    product = jax.jit(lambda a, b: a @ b)
    return 2 * size**3 / device_seconds(lambda: product(a, b))


class Pinning:
    """Keeps the interpreter and a CPU device's threads on different cores, as far as there are several.

    `keep_host_core_free` before jax starts its device threads, `take_host_core` once it has.

    XLA's threads inherit the cores of the thread that starts them; on a GPU, `release` is all that is called for.
    """

    def __init__(self):
        supported = hasattr(os, "sched_setaffinity")
        self._cores = sorted(os.sched_getaffinity(0)) if supported else []

    def keep_host_core_free(self) -> None:
        if len(self._cores) > 1:
            os.sched_setaffinity(0, self._cores[1:])

    def take_host_core(self) -> bool:
        """Moves the calling thread to the core that was kept free; False if there is none to spare."""
        if len(self._cores) > 1:
            os.sched_setaffinity(0, self._cores[:1])
        return len(self._cores) > 1

    def release(self) -> None:
        if self._cores:
            os.sched_setaffinity(0, self._cores)
