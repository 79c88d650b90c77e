"""Random words and Gumbel noise: the same in every backend, for they use only operations that both have."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry2x32(key: tuple[jax.Array, jax.Array], first: jax.Array, second: jax.Array) -> jax.Array:
    """First word of Threefry-2x32, 20 rounds (Salmon et al. 2011); all uint32 and broadcastable."""
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    a, b = first + keys[0], second + keys[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            a = a + b
            b = (b << jnp.uint32(rotation)) | (b >> jnp.uint32(32 - rotation))
            b = a ^ b
        a = a + keys[(block + 1) % 3]
        b = b + keys[(block + 2) % 3] + jnp.uint32(block + 1)
    return a


def counter(index: jax.Array, stream: int | jax.Array) -> jax.Array:
    """Numbers a request's draws, uint32 [B]: of its token `index`, int32 [B], in `stream`, one or int32 [B]."""
    return index.astype(jnp.uint32) * jnp.uint32(8) + jnp.asarray(stream).astype(jnp.uint32)


def words(seed: jax.Array, counter: jax.Array, column: jax.Array) -> jax.Array:
    """Random words of columns for a `counter` of a request with `seed`, all uint32; shapes broadcast.

    Key (seed, 0), counter (`counter`, column).
    """
    return threefry2x32((seed, jnp.zeros_like(seed)), counter, column)


def gumbel(seed: jax.Array, counter: jax.Array, column: jax.Array) -> jax.Array:
    """Standard Gumbel noise, float32; arguments as for `words`."""
    # 23 bits and a half: strictly inside (0, 1) and exact in float32.
    high = (words(seed, counter, column) >> jnp.uint32(9)).astype(jnp.float32)
    return -jnp.log(-jnp.log((high + jnp.float32(0.5)) * jnp.float32(2**-23)))
