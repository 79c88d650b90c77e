"""What stays on the device from launch to launch: the paged key/value pool and the state of every row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.config import TextConfig
from jaxphoton.model.attention import attend
from jaxphoton.model.text import Attend


@struct.dataclass
class PagedCache:
    """Keys and values of all sequences, donated through every program: one physical allocation.

    Attributes:
      k, v: [L, P, G, K, H].
    """

    k: jax.Array
    v: jax.Array

    @classmethod
    def zeros(cls, config: TextConfig, pages: int, page_size: int, dtype: DTypeLike) -> PagedCache:
        shape = (config.n_layers, pages, page_size, config.n_kv_heads, config.head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    @property
    def page_size(self) -> int:
        return self.k.shape[2]


@struct.dataclass
class RowState:
    """What a row's next step reads of its last one; R rows and one more for padding. Donated like the cache.

    Attributes:
      token: int32 [R + 1], the last sampled id.
      kind: int32 [R + 1], how it is fed (`jaxphoton.model.inputs`).
      value: float32 [R + 1, 2], its coordinate or size.
      state: int32 [R + 1], of the automaton; DONE once the row has ended for whatever reason.
      objects: int32 [R + 1], completed so far.
    """

    token: jax.Array
    kind: jax.Array
    value: jax.Array
    state: jax.Array
    objects: jax.Array

    @classmethod
    def zeros(cls, rows: int) -> RowState:
        def ints() -> jax.Array:
            return jnp.zeros(rows + 1, jnp.int32)

        return cls(ints(), ints(), jnp.zeros((rows + 1, 2), jnp.float32), ints(), ints())


def physical(positions: jax.Array, hole: jax.Array, prefix: int) -> jax.Array:
    """Where logical positions [B, T] lie in a sequence's pages: the hole [B] is behind the prefix."""
    return jnp.where(positions < prefix, positions, positions + hole[:, None])


def paged_attend(tables: jax.Array, positions: jax.Array, valid: jax.Array, hole: jax.Array, prefix: int) -> Attend:
    """Causal attention over paged keys and values (the plain form; kernels take its place on a GPU).

    Args:
      tables: int32 [B, W] page numbers.
      positions: int32 [B, T], logical.
      valid: bool [B, T]; entries that are not write to page 0 and see garbage.
      hole: int32 [B].
      prefix: length of an image prefix, static; meaningful where the hole is not 0.
    """
    places = physical(positions, hole, prefix)

    def write_and_attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array, cache: PagedCache):
        size = cache.page_size
        page = jnp.where(valid, jnp.take_along_axis(tables, places // size, axis=1, mode="clip"), 0)
        cache = PagedCache(
            cache.k.at[layer, page, places % size].set(k),
            cache.v.at[layer, page, places % size].set(v),
        )
        keys, values = (_gather(pool, layer, tables) for pool in (cache.k, cache.v))
        mask = _visible(places, hole, prefix, keys.shape[1])
        # A page's last tenant may have left NaN: values nobody may see are selected out, not multiplied by zero.
        # Padding sees entries behind the sequence's end, which hold anything.
        seen = jnp.any(mask & valid[:, :, None], axis=1)
        values = jnp.where(seen[:, :, None, None], values, jnp.zeros((), values.dtype))
        return attend(q, keys, values, mask), cache

    return write_and_attend


def _gather(pool: jax.Array, layer: int, tables: jax.Array) -> jax.Array:
    """[L, P, G, K, H] and tables [B, W] -> [B, W * G, K, H]."""
    pages = pool[layer, tables]
    return pages.reshape(pages.shape[0], -1, *pages.shape[3:])


def _visible(places: jax.Array, hole: jax.Array, prefix: int, length: int) -> jax.Array:
    """bool [B, T, length]: entries up to the query's own, the hole left out."""
    keys = jnp.arange(length, dtype=jnp.int32)[None, None, :]
    in_hole = (keys >= prefix) & (keys < prefix + hole[:, None, None])
    return (keys <= places[:, :, None]) & ~in_hole
