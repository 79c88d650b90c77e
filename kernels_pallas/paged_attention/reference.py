"""Paged attention in plain jax.numpy: the contract that every kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.dispatch import Index


def paged_attention(
    q: jax.Array,
    k_pool: jax.Array,
    v_pool: jax.Array,
    tables: jax.Array,
    lengths: jax.Array,
    prefixes: jax.Array,
    *,
    layer: Index,
    k_scale: jax.Array | None = None,
    v_scale: jax.Array | None = None,
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.paged_attention.api`. Everything is computed in float32."""
    batch, heads, head_dim = q.shape
    keys, values = _gather(k_pool, layer, tables, k_scale), _gather(v_pool, layer, tables, v_scale)
    entries = jnp.arange(keys.shape[1], dtype=jnp.int32)[None]
    visible = visible_entries(entries, lengths, prefixes, k_pool.shape[2])
    # Entries nobody may see hold anything, NaN too: selected out, since 0 * NaN is NaN.
    values = jnp.where(visible[:, :, None, None], values, jnp.float32(0))
    grouped = q.astype(jnp.float32).reshape(batch, keys.shape[2], heads // keys.shape[2], head_dim)
    scores = jnp.einsum("bkgh,bskh->bkgs", grouped, keys, precision=lax.Precision.HIGHEST) * head_dim**-0.5
    scores = jnp.where(visible[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    output = jnp.einsum("bkgs,bskh->bkgh", weights, values, precision=lax.Precision.HIGHEST)
    return output.reshape(q.shape).astype(q.dtype)


def visible_entries(entries: jax.Array, lengths: jax.Array, prefixes: jax.Array, page_size: int) -> jax.Array:
    """bool [B, S]: which of the entries int32 [1 or B, S] their row may see."""
    gap_ends = prefixes + -prefixes % page_size
    in_gap = (entries >= prefixes[:, None]) & (entries < gap_ends[:, None])
    return (entries < lengths[:, None]) & ~in_gap


def _gather(pool: jax.Array, layer: Index, tables: jax.Array, scale: jax.Array | None) -> jax.Array:
    """[L, P, G, K, H] and tables [B, W] -> float32 [B, W * G, K, H]."""
    pages = pool[layer, tables].astype(jnp.float32)
    if scale is not None:
        pages = pages * scale[layer]
    return pages.reshape(pages.shape[0], -1, *pages.shape[3:])
