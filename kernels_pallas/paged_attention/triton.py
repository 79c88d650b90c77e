"""Paged attention as one Pallas-Triton kernel.

A program takes a few neighbouring kv heads of one row and a share of its keys. Memory is what it waits for: a token's
heads adjoin in a page, so `block_heads` heads of one token are one run of a few hundred bytes, read 16 bytes a thread;
the keys and values of a whole block are asked for before either is used; programs that run side by side (the first
grid axis) read the neighbouring heads of the same pages.

With one query a kv head a dot would waste 15/16 of a tensor core, so products are summed in registers. Each place of
a block keeps a softmax of its own (maximum, sum, weighted values) through the loop: no program waits for its other
warps before the end, when the places are merged. Queries of a group (grouped heads) are a static loop around that.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas import softmax
from kernels_pallas.dispatch import Index
from kernels_pallas.softmax import LOG2_E, LOWEST
from kernels_pallas.triton_shim import pallas_call

HEAD_DIMS = (16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What may be varied on a GPU.

    Attributes:
      block_heads: kv heads a program takes at most; a power of two.
      block_size: float32 accumulators a program keeps, of all its queries together.
      block_queries: queries of one kv head a program takes at most; more are spread over programs.
      programs: a multiprocessor's share, which sets how often keys are split.
      max_splits: bound on that, since the combine reads every part.
    """

    block_heads: int = 2
    block_size: int = 4096
    block_queries: int = 8
    warps: int = 4
    stages: int = 1
    programs: int = 4
    max_splits: int = 16


@dataclass(frozen=True, slots=True)
class _Plan:
    """Static sizes of one compiled kernel."""

    block_k: int
    heads: int
    queries: int
    chunks: int
    page_size: int
    width: int
    splits: int
    scale: float


def refusals(q: jax.Array) -> list[str]:
    """Why the kernel cannot take these shapes and dtypes on any device."""
    return [] if q.shape[2] in HEAD_DIMS else [f"its head dims are {HEAD_DIMS}, not {q.shape[2]}"]


def choose_splits(q: jax.Array, k_pool: jax.Array, tables: jax.Array, cores: int, tuning: Tuning = Tuning()) -> int:
    """How many programs share a row's keys: one where the batch alone fills the device."""
    plan = _plan(q, k_pool, tables, 1, tuning)
    programs = q.shape[0] * (k_pool.shape[3] // plan.heads) * plan.chunks
    blocks = -(-plan.width * plan.page_size // plan.block_k)
    return max(1, min(tuning.programs * cores // programs, tuning.max_splits, blocks))


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
    splits: int,
    interpret: bool = False,
    tuning: Tuning = Tuning(),
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.paged_attention.api`."""
    batch, query_heads, head_dim = q.shape
    kv_heads = k_pool.shape[3]
    plan = _plan(q, k_pool, tables, splits, tuning)
    grouped = q.reshape(batch, kv_heads, query_heads // kv_heads, head_dim)
    parts = (batch, splits, *grouped.shape[1:])
    float32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    whole = jax.ShapeDtypeStruct(grouped.shape, q.dtype)
    call = pallas_call(
        functools.partial(_kernel, plan),
        name="paged_attention",
        grid=(kv_heads // plan.heads * plan.chunks, splits, batch),
        out_shape=[whole] if splits == 1 else [float32(parts), float32(parts[:-1]), float32(parts[:-1])],
        warps=tuning.warps,
        stages=tuning.stages,
        interpret=interpret,
    )
    # The layer is an operand, not a constant of the kernel: all layers share one.
    layer_index = jnp.full(1, layer, jnp.int32)
    scales = () if k_scale is None or v_scale is None else (k_scale, v_scale)
    outputs = call(layer_index, tables, lengths, prefixes, grouped, k_pool, v_pool, *scales)
    if splits == 1:
        return outputs[0].reshape(q.shape)
    tails = (q.shape[1:], q.shape[1:2], q.shape[1:2])
    parts = [part.reshape(batch, splits, *tail) for part, tail in zip(outputs, tails, strict=True)]
    options = {"block_heads": tuning.block_heads, "interpret": interpret}
    return softmax.combine(parts, q.dtype, name="paged_attention_combine", **options)


def _plan(q: jax.Array, k_pool: jax.Array, tables: jax.Array, splits: int, tuning: Tuning) -> _Plan:
    page_size, kv_heads, head_dim = k_pool.shape[2:]
    group = q.shape[1] // kv_heads
    heads = math.gcd(kv_heads, tuning.block_heads)
    queries = max(n for n in range(1, tuning.block_queries + 1) if group % n == 0)
    # No thread gets less than one load of 16 bytes in bfloat16.
    size = max(tuning.block_size // queries, tuning.warps * 32 * 8)
    block_k = 1 << (size // (heads * head_dim)).bit_length() - 1
    return _Plan(block_k, heads, queries, group // queries, page_size, tables.shape[1], splits, head_dim**-0.5 * LOG2_E)


def _kernel(plan: _Plan, layer_ref, tables_ref, lengths_ref, prefixes_ref, q_ref, k_ref, v_ref, *refs):
    """One program: the keys of one share, for `plan.heads` kv heads and `plan.queries` queries of each."""
    outs = 1 if plan.splits == 1 else 3
    scale_refs, out_refs = refs[:-outs], refs[-outs:]
    split, row = pl.program_id(1), pl.program_id(2)
    heads = pl.ds(lax.div(pl.program_id(0), plan.chunks) * plan.heads, plan.heads)
    first_query = lax.rem(pl.program_id(0), plan.chunks) * plan.queries
    layer = layer_ref[0]
    prefix = prefixes_ref[row]
    # Behind the padding gap; `%` of negative numbers costs more here.
    gap_end = lax.div(prefix + (plan.page_size - 1), plan.page_size) * plan.page_size
    length = jnp.minimum(lengths_ref[row], plan.width * plan.page_size)
    # A row that ends in the gap ends before it: its last entry is always visible.
    length = jnp.where((length > prefix) & (length <= gap_end), prefix, length)
    k_scale, v_scale = (ref[layer] for ref in scale_refs) if scale_refs else (jnp.float32(1), jnp.float32(1))
    queries = [
        q_ref[row, heads, first_query + i, :].astype(jnp.float32) * (k_scale * plan.scale) for i in range(plan.queries)
    ]

    def visit(block, states):
        entries = block * plan.block_k + lax.iota(jnp.int32, plan.block_k)
        visible = (entries < length) & ((entries < prefix) | (entries >= gap_end))
        # What may hold NaN is not read: the last entry is read again in its place, and gets no weight.
        entries = jnp.where(visible, entries, length - 1)
        page, offset = tables_ref[row, lax.div(entries, plan.page_size)], lax.rem(entries, plan.page_size)
        k = k_ref[layer, page, offset, heads, :]
        v = v_ref[layer, page, offset, heads, :]
        k, v = k.astype(jnp.float32), v.astype(jnp.float32)
        return tuple(
            softmax.attend(q, k, v, visible[:, None], *state) for q, state in zip(queries, states, strict=True)
        )

    blocks = lax.div(length + (plan.block_k - 1), plan.block_k)
    share = lax.div(blocks + (plan.splits - 1), plan.splits)
    begin = split * share
    shape = (plan.block_k, plan.heads)
    state = (
        jnp.full(shape, LOWEST, jnp.float32),
        jnp.zeros(shape, jnp.float32),
        jnp.zeros((*shape, q_ref.shape[-1]), jnp.float32),
    )
    states = lax.fori_loop(begin, jnp.minimum(begin + share, blocks), visit, (state,) * plan.queries)
    for i, state in enumerate(states):
        top, total, values = softmax.merge(*state)
        values = values * v_scale
        place = (heads, first_query + i)
        if plan.splits == 1:
            out_refs[0][row, *place, :] = softmax.normalise(values, total).astype(out_refs[0].dtype)
        else:
            out_refs[0][row, split, *place, :] = values
            out_refs[1][row, split, *place] = top
            out_refs[2][row, split, *place] = total
