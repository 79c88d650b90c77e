"""The GPU kernel: attention in blocks of queries and keys with a running softmax, keys found through the page table."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.dispatch import Index
from kernels_pallas.triton_shim import dot, pallas_call

LOG2_E = 1.4426950408889634
# The loads of keys depend on those of page numbers, and both take stages: with fewer than 5 a block's keys are waited
# for as soon as they are asked for (read off the PTX).
STAGES = 5
MASKED = -1e30  # finite: the difference of two masked scores is 0, not NaN


def refusals(k_pool: jax.Array) -> list[str]:
    """Why the kernel cannot take these pools on any device."""
    head_dim = k_pool.shape[-1]
    return [] if head_dim in (16, 32, 64, 128) else [f"head dim {head_dim} is not 16, 32, 64 or 128"]


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
    *,
    interpret: bool,
) -> jax.Array:
    """Arguments and result as of `kernels_pallas.prefix_attention.prefix_attention`."""
    rows, tokens, heads, head_dim = q.shape
    block_q, block_k = _blocks(tokens, head_dim, q.dtype)
    padded = max(tokens, block_q)
    q = jnp.pad(q, ((0, 0), (0, padded - tokens), (0, 0), (0, 0)))
    scaled = k_scale is not None
    of_head = pl.BlockSpec((None, padded, None, head_dim), lambda row, head, block: (row, 0, head, 0))
    whole = pl.BlockSpec()
    out = pallas_call(
        partial(_kernel, block_q=block_q, block_k=block_k, group=heads // k_pool.shape[3], scaled=scaled),
        name="prefix_attention",
        grid=(rows, heads, pl.cdiv(padded, block_q)),
        in_specs=[whole] * 7 + [of_head, whole, whole],
        out_specs=of_head,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        warps=4,
        stages=STAGES,
        interpret=interpret,
    )(
        # An operand, not a constant of the kernel: all layers share one.
        jnp.full(1, layer, jnp.int32),
        tables,
        starts,
        counts,
        prefixes,
        k_scale if scaled else jnp.ones(1, jnp.float32),
        v_scale if scaled else jnp.ones(1, jnp.float32),
        q,
        k_pool,
        v_pool,
    )
    return out[:, :tokens]


def _blocks(tokens: int, head_dim: int, dtype: jax.typing.DTypeLike) -> tuple[int, int]:
    """Queries and keys of a block: the largest that spill no registers on compute capability 8.0 to 9.0.

    (All but float32 queries over float8 pools, which spill some.)
    """
    block_q = 64 if tokens >= 64 and dtype != jnp.float32 else 32 if tokens >= 32 else 16
    return block_q, 64 if head_dim <= 64 and dtype != jnp.float32 else 32


def _kernel(
    layer_ref, tables_ref, starts_ref, counts_ref, prefixes_ref, k_scale_ref, v_scale_ref,
    q_ref, k_ref, v_ref, out_ref, *, block_q: int, block_k: int, group: int, scaled: bool,
):  # fmt: skip
    """One block of queries of one head: q_ref and out_ref are [T, H], all else is whole."""
    row, head = pl.program_id(0), pl.program_id(1)
    layer = layer_ref[0]
    start, count, prefix = (ref[row] for ref in (starts_ref, counts_ref, prefixes_ref))
    page_size = k_ref.shape[2]
    # The padding gap; `%` of negative numbers costs more here.
    gap = lax.div(prefix + (page_size - 1), page_size) * page_size - prefix
    tokens, head_dim = q_ref.shape
    # The last block begins early enough to be full, where T is not a multiple of its size: it repeats some queries of
    # the block before and writes the same values, and nothing needs padding.
    first = jnp.minimum(pl.program_id(2) * block_q, tokens - block_q)
    queries = pl.ds(first, block_q)
    positions = start + first + jnp.arange(block_q, dtype=jnp.int32)
    last_seen = jnp.where(positions < prefix, prefix - 1, positions + gap)
    # The block's own last real query sees the most.
    last = start + jnp.minimum(first + block_q, count) - 1
    end = jnp.where(last < prefix, prefix, last + gap + 1)
    blocks = jnp.where(first < count, lax.div(end + (block_k - 1), block_k), 0)

    q = q_ref[queries, :]
    to_exponent = (head_dim**-0.5 * LOG2_E) * k_scale_ref[layer if scaled else 0]

    def load(ref, pages, offsets):
        return ref[layer, pages, offsets, head // group, :].astype(q.dtype)

    def over_keys(block, carry):
        top, total, sums = carry
        entries = block * block_k + jnp.arange(block_k, dtype=jnp.int32)
        hidden = ((entries >= prefix) & (entries < prefix + gap)) | (entries >= end)
        # What no query sees is never read, since it may be NaN: the row's first entry stands in.
        places = jnp.where(hidden, 0, entries)
        pages, offsets = tables_ref[row, lax.div(places, page_size)], lax.rem(places, page_size)
        scores = _dot(q, load(k_ref, pages, offsets), trans_b=True) * to_exponent
        visible = (entries[None, :] <= last_seen[:, None]) & ~hidden[None, :]
        scores = jnp.where(visible, scores, MASKED)
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        weights = jnp.exp2(scores - new_top[:, None])
        shrink = jnp.exp2(top - new_top)
        total = total * shrink + jnp.sum(weights, axis=1)
        sums = sums * shrink[:, None] + _dot(weights.astype(q.dtype), load(v_ref, pages, offsets))
        return new_top, total, sums

    nothing = jnp.zeros(block_q, jnp.float32)
    _, total, sums = lax.fori_loop(
        0, blocks, over_keys, (nothing + MASKED, nothing, jnp.zeros((block_q, head_dim), jnp.float32))
    )
    real = first + jnp.arange(block_q, dtype=jnp.int32) < count
    out = jnp.where(real[:, None], sums / total[:, None] * v_scale_ref[layer if scaled else 0], 0.0)
    out_ref[queries, :] = out.astype(out_ref.dtype)


def _dot(a: jax.Array, b: jax.Array, *, trans_b: bool = False) -> jax.Array:
    # Without it float32 would be TF32.
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return dot(a, b, trans_b=trans_b, precision=precision)
