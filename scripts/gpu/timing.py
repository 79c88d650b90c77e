"""How the check measures: work enqueued back to back, warm-up first, medians, variants taking turns.

Data are random everywhere: a GPU multiplies zeros faster, and zeros hide what was never written.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxphoton.measure.timing import device_seconds, memory_limit

KERNEL_SECONDS = 0.03  # for batches of single kernels, of which there are many
WARM_UP = 3


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
