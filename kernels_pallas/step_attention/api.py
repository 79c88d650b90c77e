"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.dispatch import Index, Target, choose, outside
from kernels_pallas.step_attention import reference, triton

DTYPES = (jnp.bfloat16, jnp.float32)
SCALED_DTYPE = jnp.float8_e4m3fn


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
    splits: int | None = None,
    backend: str | None = None,
    target: Target | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One new position a row: turns its query and key, writes its key and value, attends to all up to itself.

    Everything else is as in `kernels_pallas.paged_attention`: entry s of row b lies in page tables[b, s // G] at
    s % G, and what a row does not see may hold anything, NaN too. Donate the pools: they are updated in place.

    Args:
      u: [B, C], bfloat16 or float32, biases added: q of N heads, k of K heads, v of K heads, all of dim H, and
        whatever follows them. N is a multiple of K: query head n reads kv head n // (N // K).
      k_pool, v_pool: [L, P, G, K, H] (layers, pages, page size, kv heads, head dim) in u's dtype or float8_e4m3fn.
      tables: int32 [B, W] page numbers; those behind a row's length may be any page. No two rows write to one page.
      lengths: int32 [B], entries in use, the new one, the last, included, at most W * G; 0 for a row that has ended,
        which gives zeros and writes nothing that anybody may read: page 0 may change.
      prefixes: int32 [B]; entries from a prefix's length to the end of its last page are nobody's, and the new entry
        is none of them. 0 for none.
      cos, sin: float32 [B, R], R at most H / 2, of the angles of the new position: in each head of q and k dim i < R
        is turned with dim i + R; those from 2 R on stay.
      layer: which of L.
      heads: N.
      factor_parts: float32 [S, B, 2 * N], parts of sums (`kernels_pallas.tau_product`), those of q first; N = K then.
      factor_terms: float32 [L, B, N]; q and v are multiplied by tanh of the sum plus the term of layer, row and head
        before all else. None, both of them, for nothing.
      k_scale, v_scale: float32 [L], for float8 pools alone: value = stored * scale[layer].
      splits: programs that share a row's keys; None chooses by B, K and the device. `reference` ignores it.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      (attention output [B, N * H] in u's dtype, k_pool, v_pool).

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    _check(u, k_pool, v_pool, (tables, lengths, prefixes), layer)
    _check_heads(u, k_pool, heads, cos, sin)
    _check_factors(u, k_pool, heads, factor_parts, factor_terms)
    _check_choices(k_pool, k_scale, v_scale, splits)
    target = target or Target.of(jax.devices()[0])
    chosen = choose("step_attention", backend, target, triton.refusals(k_pool), (k_pool, v_pool))
    operands = (u, k_pool, v_pool, tables, lengths, prefixes, cos, sin)
    options = {"layer": layer, "heads": heads, "factor_parts": factor_parts, "factor_terms": factor_terms}
    options |= {"k_scale": k_scale, "v_scale": v_scale}
    if chosen == "reference":
        return reference.step_attention(*operands, **options)
    splits = splits or triton.choose_splits(u, k_pool, tables, heads, target.cores)
    return triton.step_attention(*operands, **options, splits=splits, interpret=chosen == "interpret")


def _check(u, k_pool, v_pool, integers, layer) -> None:
    if u.ndim != 2 or u.dtype not in DTYPES:
        raise ValueError(f"u must be [B, C] in bfloat16 or float32, not {u.dtype}{list(u.shape)}")
    if k_pool.ndim != 5 or k_pool.shape != v_pool.shape or k_pool.dtype != v_pool.dtype:
        raise ValueError(f"the pools must be two equal [L, P, G, K, H], not {k_pool.shape} and {v_pool.shape}")
    if k_pool.dtype not in (u.dtype, SCALED_DTYPE):
        raise ValueError(f"pools in {k_pool.dtype} do not go with a product in {u.dtype}")
    if outside(layer, k_pool.shape[0]):
        raise ValueError(f"layer {layer} of {k_pool.shape[0]}")
    tables, *rows = integers
    if tables.ndim != 2 or any(x.shape != u.shape[:1] for x in (tables[:, 0], *rows)):
        raise ValueError(f"tables, lengths and prefixes must have {u.shape[0]} rows")
    if any(x.dtype != jnp.int32 for x in integers):
        raise ValueError("tables, lengths and prefixes must be int32")


def _check_heads(u, k_pool, heads, cos, sin) -> None:
    kv_heads, head_dim = k_pool.shape[3:]
    if heads < 1 or heads % kv_heads:
        raise ValueError(f"{heads} query heads do not fit {kv_heads} kv heads")
    if u.shape[1] < (wide := (heads + 2 * kv_heads) * head_dim):
        raise ValueError(f"u has {u.shape[1]} columns; {heads} + 2 * {kv_heads} heads of {head_dim} take {wide}")
    angles = cos.ndim == 2 and cos.shape == sin.shape and cos.shape[0] == u.shape[0] and cos.shape[1] >= 1
    if not angles or 2 * cos.shape[1] > head_dim or cos.dtype != jnp.float32 or sin.dtype != jnp.float32:
        raise ValueError(
            f"cos and sin must be float32 [{u.shape[0]}, up to {head_dim // 2}], not {cos.shape}, {sin.shape}"
        )


def _check_factors(u, k_pool, heads, parts, terms) -> None:
    if parts is None and terms is None:
        return
    if parts is None or terms is None:
        raise ValueError("factor_parts and factor_terms go together")
    layers, kv_heads = k_pool.shape[0], k_pool.shape[3]
    if heads != kv_heads:
        raise ValueError(f"factors go with as many kv heads as query heads, not {kv_heads} and {heads}")
    rows = u.shape[0]
    if parts.ndim != 3 or not parts.shape[0] or parts.shape[1:] != (rows, 2 * heads) or parts.dtype != jnp.float32:
        raise ValueError(f"factor_parts must be float32 [S, {rows}, {2 * heads}], not {parts.dtype}{list(parts.shape)}")
    if terms.shape != (layers, rows, heads) or terms.dtype != jnp.float32:
        raise ValueError(
            f"factor_terms must be float32 [{layers}, {rows}, {heads}], not {terms.dtype}{list(terms.shape)}"
        )


def _check_choices(k_pool, k_scale, v_scale, splits) -> None:
    layers = k_pool.shape[0]
    if k_pool.dtype == SCALED_DTYPE:
        if any(s is None or s.shape != (layers,) or s.dtype != jnp.float32 for s in (k_scale, v_scale)):
            raise ValueError(f"float8 pools need k_scale and v_scale, float32 [{layers}]")
    elif k_scale is not None or v_scale is not None:
        raise ValueError(f"scales go with float8 pools, these are {k_pool.dtype}")
    if splits is not None and splits < 1:
        raise ValueError(f"splits must be at least 1, not {splits}")
