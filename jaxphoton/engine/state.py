"""What stays on the device from launch to launch: the paged key/value pool and the state of every row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.models.protocol import Attend, AttendJoined, CacheSpec, Kernels
from kernels_pallas.dispatch import Index
from kernels_pallas.paged_attention import paged_attention
from kernels_pallas.prefix_attention import prefix_attention
from kernels_pallas.step_attention import step_attention

FLOAT8 = jnp.float8_e4m3fn


@struct.dataclass
class PagedCache:
    """Keys and values of all sequences, donated through every program: one physical allocation.

    Attributes:
      k, v: [L, P, G, K, H].
    """

    k: jax.Array
    v: jax.Array

    @classmethod
    def zeros(cls, spec: CacheSpec, pages: int, page_size: int, dtype: DTypeLike) -> PagedCache:
        shape = (spec.n_layers, pages, page_size, spec.n_kv_heads, spec.head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    @property
    def page_size(self) -> int:
        return self.k.shape[2]


@struct.dataclass
class RowState:
    """What a row's next step reads of its last one; R rows and one more for padding. Donated like the cache.

    Attributes:
      token: int32 [R + 1], the last sampled id.
      fed: int32 [R + 1, F], what it carries besides (`protocol.Readout`); None in a family without a readout.
      state: int32 [R + 1], of the automaton; DONE once the row has ended for whatever reason.
      objects: int32 [R + 1], completed so far.
    """

    token: jax.Array
    fed: jax.Array | None
    state: jax.Array
    objects: jax.Array

    @classmethod
    def zeros(cls, rows: int, fed: int) -> RowState:
        def ints(*width: int) -> jax.Array:
            return jnp.zeros((rows + 1, *width), jnp.int32)

        return cls(ints(), ints(fed) if fed else None, ints(), ints())


def paged_attend(
    kernels: Kernels,
    page_size: int,
    tables: jax.Array,
    positions: jax.Array,
    valid: jax.Array,
    prefixes: jax.Array,
    kv_scale: jax.Array | None = None,
    ends: jax.Array | None = None,
) -> Attend:
    """Attention over paged keys and values: causal, and both ways among the positions of an image prefix.

    What follows a prefix begins on a page of its own, so that others can share its pages: the padding gap, the rest
    of its last page, is nobody's and masked.

    Args:
      tables: int32 [B, W] page numbers.
      positions: int32 [B, T], logical and consecutive.
      valid: bool [B, T], True for the first entries of a row; the others write to page 0 and see garbage.
      prefixes: int32 [B], length of the image prefix, 0 for text alone.
      kv_scale: float32 [L, 2], of float8 keys and values; None for 1.
      ends: int32 [B], where an image block of these positions ends: all of it see up to there, and nobody else both
        ways; None for `prefixes`.
    """
    places = _places(positions, prefixes, page_size)
    page = jnp.where(valid, jnp.take_along_axis(tables, places // page_size, axis=1, mode="clip"), 0)
    entry, counts = places % page_size, jnp.sum(valid, axis=1, dtype=jnp.int32)
    lengths = jnp.where(valid, places + 1, 0)[:, 0]

    def write_and_attend(layer: Index, q: jax.Array, k: jax.Array, v: jax.Array, cache: PagedCache):
        scales = _scales(cache, kv_scale)
        if scales:
            k, v = (_to_float8(part, scales[name][layer]) for part, name in ((k, "k_scale"), (v, "v_scale")))
        cache = PagedCache(cache.k.at[layer, page, entry].set(k), cache.v.at[layer, page, entry].set(v))
        pools, options = (cache.k, cache.v, tables), {"layer": layer, **scales, **kernels.options}
        if q.shape[1] == 1:
            out = paged_attention(q[:, 0], *pools, lengths, prefixes, **options)[:, None]
        else:
            out = prefix_attention(q, *pools, positions[:, 0], counts, prefixes, ends=ends, **options)
        return out, cache

    return write_and_attend


def joined_attend(
    kernels: Kernels,
    heads: int,
    page_size: int,
    tables: jax.Array,
    positions: jax.Array,
    valid: jax.Array,
    prefixes: jax.Array,
    kv_scale: jax.Array | None = None,
) -> AttendJoined:
    """`paged_attend` of one position a row, positions int32 and valid bool [B, 1], from a layer's whole input product:
    rotation, write and attention are one kernel. `heads` are those of a query."""
    lengths = jnp.where(valid, _places(positions, prefixes, page_size) + 1, 0)[:, 0]

    def attend(
        layer: Index,
        u: jax.Array,
        cos: jax.Array,
        sin: jax.Array,
        factors: tuple[jax.Array, jax.Array] | None,
        cache: PagedCache,
    ) -> tuple[jax.Array, PagedCache]:
        options = {"layer": layer, "heads": heads, **_scales(cache, kv_scale), **kernels.options}
        if factors is not None:
            options["factor_parts"], options["factor_terms"] = factors
        out, k, v = step_attention(u, cache.k, cache.v, tables, lengths, prefixes, cos, sin, **options)
        return out, PagedCache(k, v)

    return attend


def _places(positions: jax.Array, prefixes: jax.Array, page_size: int) -> jax.Array:
    """Where positions [B, T] lie among a row's entries: those behind its prefix behind the padding gap."""
    gaps = -prefixes % page_size
    return jnp.where(positions < prefixes[:, None], positions, positions + gaps[:, None])


def _scales(cache: PagedCache, kv_scale: jax.Array | None) -> dict[str, jax.Array]:
    """What the numbers of float8 pools stand for, float32 [L] each; nothing for other pools."""
    if cache.k.dtype != FLOAT8:
        return {}
    factors = jnp.ones((cache.k.shape[0], 2), jnp.float32) if kv_scale is None else kv_scale
    return {"k_scale": factors[:, 0], "v_scale": factors[:, 1]}


def _to_float8(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x / scale, rounded; beyond the largest number to that, since float8_e4m3fn has no infinity."""
    largest = float(jnp.finfo(FLOAT8).max)
    return jnp.clip(x.astype(jnp.float32) / scale, -largest, largest).astype(FLOAT8)
