"""Attention over pages for a CPU: row by row, and of each row only the pages that somebody in it sees.

The plain forms gather a whole page table, of 2,048 positions where 800 are in use, and copy it again to mask and to
transpose it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.dispatch import Index

FEW_QUERIES = 64  # so many share one product for all heads; the scores of more stay in the caches head by head
FEW_ENTRIES = 256  # of a chunk of few queries
LEAST_ENTRIES, MOST_ENTRIES = 128, 768  # of one of many, as many as queries between these: an image prefix is one chunk
LOWEST = float(jnp.finfo(jnp.float32).min)


@jax.jit  # so that programs of one shape, and layers of several kinds in one, trace it once
def attend(
    q: jax.Array,
    k_pool: jax.Array,
    v_pool: jax.Array,
    tables: jax.Array,
    last: jax.Array,
    prefixes: jax.Array,
    layer: Index,
    k_scale: jax.Array | None,
    v_scale: jax.Array | None,
) -> jax.Array:
    """Softmax attention, scores, softmax and sums in float32.

    Entry s of row b lies in page tables[b, s // G] at s % G. Entries that no query sees may hold anything.

    Args:
      q: [B, T, N, H].
      k_pool, v_pool: [L, P, G, K, H].
      tables: int32 [B, W].
      last: int32 [B, T], the last entry that a query sees; -1 for none.
      prefixes: int32 [B]; entries from there to the end of the page are invisible.
      layer, k_scale, v_scale: as of `kernels_pallas.paged_attention`.

    Returns:
      [B, T, N, H] in q's dtype, zeros where nothing is seen.
    """
    rows, tokens, heads, head_dim = q.shape
    size, kv_heads = k_pool.shape[2:4]
    entries = FEW_ENTRIES if tokens <= FEW_QUERIES else min(max(tokens, LEAST_ENTRIES), MOST_ENTRIES)
    pages = min(tables.shape[1], -(-entries // size))
    tables = jnp.pad(tables, [(0, 0), (0, -tables.shape[1] % pages)])
    factor = head_dim**-0.5 if k_scale is None else head_dim**-0.5 * k_scale[layer]
    # [B, K, (N / K) T, H]
    queries = q.reshape(rows, tokens, kv_heads, -1, head_dim).transpose(0, 2, 3, 1, 4)
    queries = queries.reshape(rows, kv_heads, -1, head_dim)

    def row(one: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        queries, table, last, prefix = one
        limits = jnp.tile(last, heads // kv_heads)

        def chunk(index: jax.Array, sums: _Sums) -> _Sums:
            at = lax.dynamic_slice_in_dim(table, index * pages, pages)
            keys, values = (_heads(pool[layer, at], q.dtype) for pool in (k_pool, v_pool))
            entries = index * pages * size + jnp.arange(pages * size, dtype=jnp.int32)
            seen = ~((entries >= prefix) & (entries < prefix + -prefix % size))
            # 0 * NaN is NaN.
            values = jnp.where((seen & (entries <= jnp.max(last)))[None, :, None], values, jnp.zeros((), values.dtype))
            mask = seen[None] & (entries[None] <= limits[:, None])
            if tokens <= FEW_QUERIES:
                return _update(queries, keys, values, mask[None], factor, sums)
            in_turn = (queries, keys, values, sums)
            return lax.map(lambda head: _update(head[0], head[1], head[2], mask, factor, head[3]), in_turn)

        shape = queries.shape[:-1]
        zeros = jnp.full(shape, LOWEST), jnp.zeros(shape), jnp.zeros(queries.shape, jnp.float32)
        _, total, out = lax.fori_loop(0, (jnp.max(last) + pages * size) // (pages * size), chunk, zeros)
        return out / jnp.where(total > 0, total, 1.0)[..., None]

    out = lax.map(row, (queries, tables, last, prefixes))
    if v_scale is not None:
        out = out * v_scale[layer]
    return out.reshape(rows, heads, tokens, head_dim).transpose(0, 2, 1, 3).astype(q.dtype)


# Of some queries: their largest score so far, the sum of the weights, and that of the weighted values.
_Sums = tuple[jax.Array, jax.Array, jax.Array]


def _heads(pages: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Pages [P, G, K, H] -> [K, P * G, H]."""
    return pages.reshape(-1, *pages.shape[2:]).astype(dtype).transpose(1, 0, 2)


def _update(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, factor: jax.Array | float, sums: _Sums
) -> _Sums:
    """Queries [..., Q, H], keys and values [..., S, H], mask of as many axes -> the sums with these."""
    largest, total, out = sums
    scores = _einsum("...qh,...sh->...qs", queries, keys) * factor
    scores = jnp.where(mask, scores, LOWEST)
    now = jnp.maximum(largest, jnp.max(scores, axis=-1))
    weights = jnp.where(mask, jnp.exp(scores - now[..., None]), 0.0)
    before = jnp.exp(largest - now)
    added = _einsum("...qs,...sh->...qh", weights.astype(values.dtype), values)
    return now, total * before + jnp.sum(weights, axis=-1), out * before[..., None] + added


def _einsum(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
