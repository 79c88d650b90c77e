"""Keys and values of the positions seen so far, one dense row a sequence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.layers.attention import Attend, attend, block_mask, prefix_blocks
from kernels_pallas.dispatch import Index


@struct.dataclass
class DenseCache:
    """Indexed by position; entries beyond a row's length are garbage that the mask hides.

    Attributes:
      k, v: [L, B, S, K, H].
    """

    k: jax.Array
    v: jax.Array

    @classmethod
    def zeros(cls, layers: int, kv_heads: int, head_dim: int, rows: int, length: int, dtype: DTypeLike) -> DenseCache:
        shape = (layers, rows, length, kv_heads, head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def dense_attend(positions: jax.Array, prefix_length: jax.Array, length: int) -> Attend:
    """Attention over a DenseCache of `length` positions.

    positions int32 [B, T]; prefix_length int32 [B], the length of the bidirectional prefix, 0 without an image.
    """
    keys = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], (positions.shape[0], length))
    return dense_attend_blocks(positions, prefix_blocks(keys, prefix_length))


def dense_attend_blocks(positions: jax.Array, blocks: jax.Array) -> Attend:
    """Attention over a DenseCache of S positions.

    positions int32 [B, T]; blocks int32 [B, S], the image block of every position, see `block_mask`.
    """
    rows = jnp.arange(positions.shape[0], dtype=jnp.int32)[:, None]
    keys = jnp.broadcast_to(jnp.arange(blocks.shape[1], dtype=jnp.int32)[None], blocks.shape)
    mask = block_mask(positions, keys, blocks[rows, positions], blocks)

    def write_and_attend(layer: Index, q: jax.Array, k: jax.Array, v: jax.Array, cache: DenseCache):
        cache = DenseCache(
            cache.k.at[layer, rows, positions].set(k),
            cache.v.at[layer, rows, positions].set(v),
        )
        return attend(q, cache.k[layer], cache.v[layer], mask), cache

    return write_and_attend
