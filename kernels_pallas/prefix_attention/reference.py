"""The contract in plain jax.numpy: gathers every page of the tables and masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.dispatch import Index


def attend(
    q: jax.Array,
    k_pool: jax.Array,
    v_pool: jax.Array,
    tables: jax.Array,
    starts: jax.Array,
    counts: jax.Array,
    prefixes: jax.Array,
    layer: Index,
    k_scale: jax.Array | None,
    v_scale: jax.Array | None,
) -> jax.Array:
    """Arguments and result as of `kernels_pallas.prefix_attention.prefix_attention`."""
    rows, tokens, heads, head_dim = q.shape
    kv_heads = k_pool.shape[3]
    keys, values = (_gather(pool, layer, tables).astype(q.dtype) for pool in (k_pool, v_pool))
    real = jnp.arange(tokens, dtype=jnp.int32)[None, :] < counts[:, None]
    mask = _visible(starts, prefixes, k_pool.shape[2], tokens, keys.shape[1]) & real[:, :, None]
    # Entries that nobody sees may be NaN, which no weight of zero would take away.
    seen = jnp.any(mask, axis=1)[:, :, None, None]
    values = jnp.where(seen, values, jnp.zeros((), values.dtype))

    grouped = q.reshape(rows, tokens, kv_heads, heads // kv_heads, head_dim)
    scores = _einsum("btkgh,bskh->bkgts", grouped, keys) * head_dim**-0.5
    if k_scale is not None:
        scores = scores * k_scale[layer]
    scores = jnp.where(mask[:, None, None, :, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    out = _einsum("bkgts,bskh->btkgh", weights, values)
    if v_scale is not None:
        out = out * v_scale[layer]
    return jnp.where(real[:, :, None, None], out.reshape(q.shape), 0.0).astype(q.dtype)


def _einsum(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def _gather(pool: jax.Array, layer: Index, tables: jax.Array) -> jax.Array:
    """[L, P, G, K, H] and tables [B, W] -> [B, W * G, K, H]."""
    pages = pool[layer, tables]
    return pages.reshape(pages.shape[0], -1, *pages.shape[3:])


def _visible(starts: jax.Array, prefixes: jax.Array, page_size: int, tokens: int, length: int) -> jax.Array:
    """bool [B, T, length], True where a query may attend to an entry."""
    entries = jnp.arange(length, dtype=jnp.int32)[None, None, :]
    positions = (starts[:, None] + jnp.arange(tokens, dtype=jnp.int32)[None, :])[:, :, None]
    prefix, gap = prefixes[:, None, None], (-prefixes % page_size)[:, None, None]
    of_query = jnp.where(positions < prefix, positions, positions + gap)
    both_ways = (positions < prefix) & (entries < prefix)
    in_gap = (entries >= prefix) & (entries < prefix + gap)
    return ((entries <= of_query) | both_ways) & ~in_gap
