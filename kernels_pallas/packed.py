"""int4 in kernels: words of several numbers, in which shifts and masks make bfloat16 of two at once.

They are not put in order: x comes with the columns of the first number of all words, then those of the second, and each
meets its own in a dot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def words(matrix: jax.Array, bits: int) -> jax.Array:
    """int4 [..., K] as integers of so many bits, [..., K / places]: on a GPU the same memory."""
    each = matrix.reshape(*matrix.shape[:-1], -1, bits // 4)
    return lax.bitcast_convert_type(each, jnp.dtype(f"int{bits}"))


def by_place(x: jax.Array, places: int) -> jax.Array:
    """x [B, K] as [places, B, K / places]: of each place in a word the columns of all words."""
    return jnp.moveaxis(x.reshape(len(x), -1, places), 2, 0)


def unpacked(words: jax.Array, bits: int) -> Iterator[tuple[tuple[int], jax.Array]]:
    """In a kernel: each place in words of so many bits with its numbers, bfloat16: exact.

    Where a bfloat16 of 128 has its last four bits, the bits of a number n but for its sign make 136 + n of it.
    """
    if bits == 8:
        words = words.astype(jnp.int16)
    whole = words.dtype.type

    def twice(pattern: int) -> Any:
        return whole(pattern * (0x10001 if bits == 32 else 1))

    for place in range(min(bits, 16) // 4):
        numbers = (words >> whole(4 * place)) & twice(0x000F) ^ twice(0x0008) | twice(0x4300)
        halves = (numbers, numbers >> whole(16)) if bits == 32 else (numbers,)
        for half, low in enumerate(halves):
            yield (place + 4 * half,), lax.bitcast_convert_type(low.astype(jnp.int16), jnp.bfloat16) - jnp.bfloat16(136)
