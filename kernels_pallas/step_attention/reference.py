"""The attention of a step in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.dispatch import Index
from kernels_pallas.paged_attention import reference as paged


def step_attention(
    u: jax.Array,
    k_pool: jax.Array,
    v_pool: jax.Array,
    tables: jax.Array,
    lengths: jax.Array,
    prefixes: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    *,
    layer: Index,
    heads: int,
    factor_parts: jax.Array | None = None,
    factor_terms: jax.Array | None = None,
    k_scale: jax.Array | None = None,
    v_scale: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Shapes and meaning as in `kernels_pallas.step_attention.api`."""
    page_size, kv_heads, head_dim = k_pool.shape[2:]
    joined = u[:, : (heads + 2 * kv_heads) * head_dim].reshape(u.shape[0], -1, head_dim)
    q, k, v = jnp.split(joined, (heads, heads + kv_heads), axis=1)
    if factor_parts is not None and factor_terms is not None:
        learned = jnp.tanh(jnp.sum(factor_parts, axis=0)).reshape(u.shape[0], 2, heads)
        factors = learned + factor_terms[layer][:, None]
        q, v = _scaled(q, factors[:, 0]), _scaled(v, factors[:, 1])
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    if k_scale is not None and v_scale is not None:
        k, v = to_float8(k, k_scale[layer]), to_float8(v, v_scale[layer])
    last = jnp.maximum(lengths - 1, 0)
    page = jnp.take_along_axis(tables, (last // page_size)[:, None], axis=1, mode="clip")[:, 0]
    place = (layer, jnp.where(lengths > 0, page, 0), last % page_size)
    k_pool, v_pool = k_pool.at[place].set(k), v_pool.at[place].set(v)
    pools = (k_pool, v_pool, tables, lengths, prefixes)
    out = paged.paged_attention(q, *pools, layer=layer, k_scale=k_scale, v_scale=v_scale)
    return out.reshape(u.shape[0], -1), k_pool, v_pool


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Heads [B, N, H] turned by cos and sin [B, R]: dim i < R is paired with dim i + R, those from 2 R on stay."""
    half = cos.shape[1]
    a, b = (x[..., i * half : (i + 1) * half].astype(jnp.float32) for i in range(2))
    cos, sin = cos[:, None, :], sin[:, None, :]
    turned = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return jnp.concatenate([turned.astype(x.dtype), x[..., 2 * half :]], axis=-1)


def to_float8(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x / scale, rounded; beyond the largest number to that, since float8_e4m3fn has no infinity."""
    largest = float(jnp.finfo(jnp.float8_e4m3fn).max)
    return jnp.clip(x.astype(jnp.float32) / scale, -largest, largest).astype(jnp.float8_e4m3fn)


def _scaled(x: jax.Array, factors: jax.Array) -> jax.Array:
    """Heads [B, N, H] times factors float32 [B, N], rounded once."""
    return (x.astype(jnp.float32) * factors[..., None]).astype(x.dtype)
