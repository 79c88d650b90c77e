"""The public function: checks its arguments and chooses a backend."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas import paged_loop
from kernels_pallas.dispatch import Index, Target, choose, outside
from kernels_pallas.prefix_attention import reference, triton

OP = "prefix_attention"


def prefix_attention(
    q: jax.Array,
    k_pool: jax.Array,
    v_pool: jax.Array,
    tables: jax.Array,
    starts: jax.Array,
    counts: jax.Array,
    prefixes: jax.Array,
    *,
    layer: Index,
    ends: jax.Array | None = None,
    k_scale: jax.Array | None = None,
    v_scale: jax.Array | None = None,
    backend: str | None = None,
    target: Target | None = None,
) -> jax.Array:
    """Attention of new positions over all that is cached, rows of different kind and length in one launch.

    Logical position p of a row is entry p of its pages if p < prefix, else entry p + gap: the padding gap is the unused
    tail of the last page of an image prefix, -prefix mod G. Entry s lies in page tables[b, s // G] at s % G. A query at
    entry p sees entries up to p, one in the prefix also the whole prefix, nobody the gap. Rows of text alone have
    prefix 0. Entries that no query sees may hold anything, NaN included.

    Args:
      q: [B, T, N, H] bfloat16 or float32, the queries of positions starts .. starts + T - 1.
      k_pool, v_pool: [L, P, G, K, H] in q's dtype, or float8_e4m3fn with scales. They hold the keys and values of
        these very queries already. Query head n reads head n // (N // K).
      tables: int32 [B, W] page numbers; those behind the last visible entry may be any.
      starts: int32 [B].
      counts: int32 [B], how many of the T queries are real; 0 for a padding row.
      prefixes: int32 [B].
      layer: index into L.
      ends: int32 [B]; where it is given, the queries in front of it see all in front of it, wherever the prefix ends
        (an image block behind it), and those in the prefix no more than others. None for `prefixes`.
      k_scale, v_scale: float32 [L]; a float8 entry stands for its value times scale[layer].
      backend: see `kernels_pallas.dispatch.choose`.
      target: the device compiled for; None for jax's default device.

    Returns:
      [B, T, N, H] in q's dtype, zeros where a query is not real. Scores are scaled by H^-0.5; softmax and sums are
      float32, and so are the products of float32 inputs (no TF32).

    Raises:
      ValueError: shapes or dtypes that do not fit together.
      KernelUnavailable: the backend asked for cannot do it.
    """
    per_row = (starts, counts, prefixes) if ends is None else (starts, counts, prefixes, ends)
    faults = _faults(q, k_pool, v_pool, tables, per_row, layer, k_scale, v_scale)
    if faults:
        raise ValueError(f"{OP}: {'; '.join(faults)}")
    chosen = choose(OP, backend, target, triton.refusals(k_pool), (k_pool, v_pool), loop=True)
    rows = (tables, starts, counts, prefixes)
    if chosen == "loop":
        last = _last_seen(q.shape[1], starts, counts, prefixes, prefixes if ends is None else ends, k_pool.shape[2])
        return paged_loop.attend(q, k_pool, v_pool, tables, last, prefixes, layer, k_scale, v_scale)
    if ends is not None:
        # As pages of one entry, of which the gaps are not in the tables, this is a prefix that ends there.
        rows = (_entries(tables, prefixes, k_pool.shape[2]), starts, counts, ends)
        k_pool, v_pool = (pool.reshape(pool.shape[0], -1, 1, *pool.shape[3:]) for pool in (k_pool, v_pool))
    if chosen == "reference":
        return reference.attend(q, k_pool, v_pool, *rows, layer, k_scale, v_scale)
    return triton.attend(q, k_pool, v_pool, *rows, layer, k_scale, v_scale, interpret=chosen == "interpret")


def _last_seen(
    tokens: int, starts: jax.Array, counts: jax.Array, prefixes: jax.Array, ends: jax.Array, page_size: int
) -> jax.Array:
    """int32 [B, T]: the last entry that a query sees, -1 of one that is not real."""
    offsets = jnp.arange(tokens, dtype=jnp.int32)[None, :]
    last = starts[:, None] + offsets
    last = jnp.where(last < ends[:, None], ends[:, None] - 1, last)
    return jnp.where(offsets < counts[:, None], _behind_gap(last, prefixes, page_size), -1)


def _entries(tables: jax.Array, prefixes: jax.Array, page_size: int) -> jax.Array:
    """int32 [B, W G]: where the positions of rows lie in the whole pool."""
    rows, pages = tables.shape
    positions = jnp.broadcast_to(jnp.arange(pages * page_size, dtype=jnp.int32)[None], (rows, pages * page_size))
    entries = _behind_gap(positions, prefixes, page_size)
    page = jnp.take_along_axis(tables, entries // page_size, axis=1, mode="clip")
    return page * page_size + entries % page_size


def _behind_gap(positions: jax.Array, prefixes: jax.Array, page_size: int) -> jax.Array:
    """The entries of positions [B, S]."""
    prefix = prefixes[:, None]
    return jnp.where(positions < prefix, positions, positions + -prefix % page_size)


def _faults(q, k_pool, v_pool, tables, per_row, layer, k_scale, v_scale) -> list[str]:
    if q.ndim != 4 or k_pool.ndim != 5:
        return [f"q must be [B, T, N, H] and the pools [L, P, G, K, H], not {q.shape} and {k_pool.shape}"]
    faults = []
    rows, _, heads, head_dim = q.shape
    layers, _, _, kv_heads, _ = k_pool.shape
    if v_pool.shape != k_pool.shape or v_pool.dtype != k_pool.dtype:
        faults.append(f"the pools differ: {k_pool.dtype} {k_pool.shape} and {v_pool.dtype} {v_pool.shape}")
    if k_pool.shape[4] != head_dim or heads % kv_heads:
        faults.append(f"queries {q.shape} do not fit pools {k_pool.shape}: same H, and N a multiple of K")
    if q.dtype not in (jnp.bfloat16, jnp.float32):
        faults.append(f"queries must be bfloat16 or float32, not {q.dtype}")
    scales = [scale for scale in (k_scale, v_scale) if scale is not None]
    if k_pool.dtype == jnp.float8_e4m3fn:
        if len(scales) < 2 or any(scale.shape != (layers,) or scale.dtype != jnp.float32 for scale in scales):
            faults.append(f"float8 pools need k_scale and v_scale, float32 [{layers}]")
    elif k_pool.dtype != q.dtype:
        faults.append(f"pools must be {q.dtype} like the queries, or float8_e4m3fn, not {k_pool.dtype}")
    elif scales:
        faults.append(f"scales are for float8 pools, not {k_pool.dtype}")
    if outside(layer, layers):
        faults.append(f"layer {layer} is not one of {layers}")
    if tables.ndim != 2 or tables.shape[0] != rows or tables.dtype != jnp.int32:
        faults.append(f"tables must be int32 [{rows}, W], not {tables.dtype} {tables.shape}")
    if any(x.shape != (rows,) or x.dtype != jnp.int32 for x in per_row):
        faults.append(f"starts, counts, prefixes and ends must be int32 [{rows}]")
    return faults
