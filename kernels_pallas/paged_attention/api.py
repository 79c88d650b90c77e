"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas import paged_loop
from kernels_pallas.dispatch import Index, Target, choose, outside
from kernels_pallas.paged_attention import reference, triton

QUERY_DTYPES = (jnp.bfloat16, jnp.float32)
SCALED_DTYPE = jnp.float8_e4m3fn


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
    splits: int | None = None,
    backend: str | None = None,
    target: Target | None = None,
) -> jax.Array:
    """Softmax attention of one query token a row, scores scaled by H^-0.5, accumulated in float32.

    Entry s of row b lies in page tables[b, s // G] at s % G. Entries a row does not see may hold anything, NaN too.

    Args:
      q: [B, N, H], bfloat16 or float32. N is a multiple of K: query head n reads kv head n // (N // K).
      k_pool, v_pool: [L, P, G, K, H] (layers, pages, page size, kv heads, head dim) in q's dtype or float8_e4m3fn.
      tables: int32 [B, W] page numbers; those behind a row's length may be any page.
      lengths: int32 [B], entries in use, the query's own included, at most W * G; 0 gives zeros.
      prefixes: int32 [B]; what follows a prefix begins on a page of its own: the padding gap, entries from its length
        to the end of its last page, is invisible. 0 for none.
      layer: which of L.
      k_scale, v_scale: float32 [L], for float8 pools alone: value = stored * scale[layer].
      splits: programs that share a row's keys; None chooses by B, K and the device. `reference` ignores it.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      [B, N, H] in q's dtype.

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    _check(q, k_pool, v_pool, (tables, lengths, prefixes), layer, (k_scale, v_scale), splits)
    target = target or Target.of(jax.devices()[0])
    chosen = choose("paged_attention", backend, target, triton.refusals(q), (k_pool, v_pool), loop=True)
    operands = (q, k_pool, v_pool, tables, lengths, prefixes)
    if chosen == "reference":
        return reference.paged_attention(*operands, layer=layer, k_scale=k_scale, v_scale=v_scale)
    if chosen == "loop":
        last = lengths[:, None] - 1
        return paged_loop.attend(q[:, None], k_pool, v_pool, tables, last, prefixes, layer, k_scale, v_scale)[:, 0]
    return triton.paged_attention(
        *operands,
        layer=layer,
        k_scale=k_scale,
        v_scale=v_scale,
        splits=splits or triton.choose_splits(q, k_pool, tables, target.cores),
        interpret=chosen == "interpret",
    )


def _check(q, k_pool, v_pool, integers, layer, scales, splits) -> None:
    if q.ndim != 3 or q.dtype not in QUERY_DTYPES:
        raise ValueError(f"q must be [B, N, H] in bfloat16 or float32, not {q.dtype}{list(q.shape)}")
    if k_pool.ndim != 5 or k_pool.shape != v_pool.shape or k_pool.dtype != v_pool.dtype:
        raise ValueError(f"the pools must be two equal [L, P, G, K, H], not {k_pool.shape} and {v_pool.shape}")
    if k_pool.dtype not in (q.dtype, SCALED_DTYPE):
        raise ValueError(f"pools in {k_pool.dtype} do not go with a query in {q.dtype}")
    layers, _, _, kv_heads, head_dim = k_pool.shape
    if q.shape[2] != head_dim or q.shape[1] % kv_heads:
        raise ValueError(f"{q.shape[1]} query heads of {q.shape[2]} do not fit {kv_heads} kv heads of {head_dim}")
    if outside(layer, layers):
        raise ValueError(f"layer {layer} of {layers}")
    tables, *rows = integers
    if tables.ndim != 2 or any(x.shape != q.shape[:1] for x in (tables[:, 0], *rows)):
        raise ValueError(f"tables, lengths and prefixes must have {q.shape[0]} rows")
    if any(x.dtype != jnp.int32 for x in integers):
        raise ValueError("tables, lengths and prefixes must be int32")
    if k_pool.dtype == SCALED_DTYPE:
        if any(s is None or s.shape != (layers,) or s.dtype != jnp.float32 for s in scales):
            raise ValueError(f"float8 pools need k_scale and v_scale, float32 [{layers}]")
    elif any(s is not None for s in scales):
        raise ValueError(f"scales go with float8 pools, these are {k_pool.dtype}")
    if splits is not None and splits < 1:
        raise ValueError(f"splits must be at least 1, not {splits}")
