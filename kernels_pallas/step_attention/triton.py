"""The attention of a step as one Pallas-Triton kernel, and a second where programs share a row's keys.

As in `kernels_pallas.paged_attention.triton` a program takes a few neighbouring kv heads of one row and a share of its
keys. It turns the queries it needs itself, from the product as it is: what it would save to turn them once is less
than a launch.

The new position lies in no share. The programs of the first share, one a kv head, write it, and begin their part with
it from registers; nobody reads its place in this launch, so no order among programs matters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas import softmax
from kernels_pallas.dispatch import Index
from kernels_pallas.softmax import LOG2_E, LOWEST
from kernels_pallas.triton_shim import load, pallas_call

HEAD_DIMS = (16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What may be varied on a GPU.

    Attributes:
      block_heads: kv heads a program takes at most; a power of two.
      block_size: float32 accumulators a program keeps, of all its queries together.
      block_queries: queries of one kv head a program takes at most; more are spread over programs.
      resident: programs that a multiprocessor runs at a time, by the registers that one takes; of heads wider than 64
        half as many.
      max_splits: bound on the programs that share a row's keys, since the combine reads every part.
    """

    block_heads: int = 2
    block_size: int = 2048
    block_queries: int = 8
    warps: int = 4
    stages: int = 1
    resident: int = 8
    max_splits: int = 32


@dataclass(frozen=True, slots=True)
class _Plan:
    """Static sizes of one compiled kernel.

    Attributes:
      block_k, heads, queries: keys of a block, kv heads of a program, and its queries of each.
      group: queries of a kv head.
      turned: R, half the rotary dims.
    """

    block_k: int
    heads: int
    queries: int
    group: int
    kv_heads: int
    turned: int
    page_size: int
    width: int
    splits: int
    scale: float

    @property
    def chunks(self) -> int:
        """Programs among which the queries of a kv head are spread."""
        return self.group // self.queries

    @property
    def programs(self) -> int:
        """Of a row and a share."""
        return self.kv_heads // self.heads * self.chunks


def refusals(k_pool: jax.Array) -> list[str]:
    """Why the kernel cannot take these shapes and dtypes on any device."""
    return [] if k_pool.shape[4] in HEAD_DIMS else [f"its head dims are {HEAD_DIMS}, not {k_pool.shape[4]}"]


def choose_splits(
    u: jax.Array, k_pool: jax.Array, tables: jax.Array, heads: int, cores: int, tuning: Tuning = Tuning()
) -> int:
    """How many programs share a row's keys: the fewest with which the longest rows take (nearly) the least time.

    The busiest multiprocessor goes through the blocks of all its programs; one with fewer programs than it can hold
    waits for memory as long as if it were full.
    """
    plan = _plan(u, k_pool, tables, heads, 1, 1, tuning)
    programs = u.shape[0] * plan.programs
    blocks = -(-plan.width * plan.page_size // plan.block_k)

    resident = tuning.resident if k_pool.shape[4] <= 64 else max(1, tuning.resident // 2)

    def time(splits: int) -> int:
        return max(-(-programs * splits // cores), resident) * -(-blocks // splits)

    choices = range(1, min(tuning.max_splits, blocks) + 1)
    least = min(map(time, choices))
    return next(splits for splits in choices if time(splits) <= 1.15 * least)


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
    splits: int,
    interpret: bool = False,
    tuning: Tuning = Tuning(),
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Shapes and meaning as in `kernels_pallas.step_attention.api`."""
    batch, head_dim = u.shape[0], k_pool.shape[4]
    plan = _plan(u, k_pool, tables, heads, cos.shape[1], splits, tuning)
    scaled, factored = k_scale is not None and v_scale is not None, factor_parts is not None
    # The layer is an operand, not a constant of the kernel: all layers share one.
    operands = [jnp.full(1, layer, jnp.int32), tables, lengths, prefixes, cos, sin, u]
    operands += [factor_parts, factor_terms] * factored + [k_scale, v_scale] * scaled
    if splits == 1:
        shapes = [jax.ShapeDtypeStruct((batch, heads, head_dim), u.dtype)]
    else:
        tails = ((heads, head_dim), (heads,), (heads,))
        shapes = [jax.ShapeDtypeStruct((batch, splits, *tail), jnp.float32) for tail in tails]
    pools = [jax.ShapeDtypeStruct(pool.shape, pool.dtype) for pool in (k_pool, v_pool)]
    call = pallas_call(
        functools.partial(_kernel, plan, factored, scaled),
        name="step_attention",
        grid=(plan.programs, splits, batch),
        out_shape=[*shapes, *pools],
        input_output_aliases={len(operands) + i: len(shapes) + i for i in range(2)},
        warps=tuning.warps,
        stages=tuning.stages,
        interpret=interpret,
    )
    *parts, k_pool, v_pool = call(*operands, k_pool, v_pool)
    out = parts[0]
    if splits > 1:
        options = {"block_heads": tuning.block_heads, "interpret": interpret}
        out = softmax.combine(parts, u.dtype, name="step_attention_combine", **options)
    return out.reshape(batch, -1), k_pool, v_pool


def _plan(u, k_pool, tables, heads: int, turned: int, splits: int, tuning: Tuning) -> _Plan:
    page_size, kv_heads, head_dim = k_pool.shape[2:]
    group = heads // kv_heads
    block_heads = math.gcd(kv_heads, tuning.block_heads)
    queries = max(n for n in range(1, tuning.block_queries + 1) if group % n == 0)
    # No thread gets less than one load of 16 bytes in bfloat16.
    size = max(tuning.block_size // queries, tuning.warps * 32 * 8)
    return _Plan(
        block_k=1 << (size // (block_heads * head_dim)).bit_length() - 1,
        heads=block_heads,
        queries=queries,
        group=group,
        kv_heads=kv_heads,
        turned=turned,
        page_size=page_size,
        width=tables.shape[1],
        splits=splits,
        scale=head_dim**-0.5 * LOG2_E,
    )


def _kernel(plan: _Plan, factored: bool, scaled: bool, *refs):
    """One program: the keys of one share, for `plan.heads` kv heads and `plan.queries` queries of each."""
    layer_ref, tables, lengths, prefixes, cos, sin, u, *refs = refs
    factors, refs = (refs[:2], refs[2:]) if factored else ((), refs)
    scales, refs = (refs[:2], refs[2:]) if scaled else ((), refs)
    k_pool, v_pool, *parts, k_out, v_out = refs
    split, row = pl.program_id(1), pl.program_id(2)
    first, chunk = lax.div(pl.program_id(0), plan.chunks) * plan.heads, lax.rem(pl.program_id(0), plan.chunks)
    layer = layer_ref[0]
    k_scale, v_scale = (scale[layer] for scale in scales) if scaled else (jnp.float32(1), jnp.float32(1))
    length = jnp.minimum(lengths[row], plan.width * plan.page_size)
    takes_new = (split == 0) & (length > 0)

    kv_heads = first + lax.iota(jnp.int32, plan.heads)
    new = _New(plan, row, k_pool.shape[4], cos, sin, u, *_factors(layer, row, kv_heads, *factors))
    query_heads = [kv_heads * plan.group + (chunk * plan.queries + i) for i in range(plan.queries)]
    # A row that has ended computes from anything, NaN too, and gives zeros.
    queries = [jnp.where(length > 0, new.query(heads), jnp.float32(0)) for heads in query_heads]
    queries = [query * (k_scale * plan.scale) for query in queries]
    k = _stored(new.key(kv_heads), k_scale, k_out.dtype)
    v = _stored(new.value(kv_heads), v_scale, v_out.dtype)

    @pl.when(takes_new & (chunk == 0))
    def _() -> None:
        last = length - 1
        place = (layer, tables[row, lax.div(last, plan.page_size)], lax.rem(last, plan.page_size))
        k_out[*place, pl.ds(first, plan.heads), :] = k
        v_out[*place, pl.ds(first, plan.heads), :] = v

    old = _Old(plan, layer, row, pl.ds(first, plan.heads), tables, prefixes[row], k_pool, v_pool)
    # Before the old ones: registers that held it through their loop would be short there.
    k, v = k.astype(jnp.float32), v.astype(jnp.float32)
    begun = [_begun(plan.block_k, query, k, v, takes_new) for query in queries]
    for i, (top, total, values) in enumerate(old.attend(queries, begun, length - 1, split)):
        values = values * v_scale
        heads = pl.ds(first, plan.heads) if plan.group == 1 else query_heads[i]
        if plan.splits == 1:
            parts[0][row, heads, :] = softmax.normalise(values, total).astype(parts[0].dtype)
        else:
            parts[0][row, split, heads, :] = values
            parts[1][row, split, heads] = top
            parts[2][row, split, heads] = total


def _factors(layer: Any, row: Any, heads: Any, parts: Any = None, terms: Any = None) -> tuple[Any, Any]:
    """What q and v of some heads [n] are multiplied by, float32 [n] each; None where there are no parts of it."""
    if parts is None:
        return None, None
    share = lax.iota(jnp.int32, pl.next_power_of_2(parts.shape[0]))[:, None]
    term = terms[layer, row, heads]

    def factor(columns: Any) -> Any:
        of_share = load(parts.at[share, row, columns[None]], mask=share < parts.shape[0], other=0)
        return jnp.tanh(jnp.sum(of_share, axis=0)) + term

    return factor(heads), factor(heads + terms.shape[2])


class _New(NamedTuple):
    """The new position of a row: its part of the product, of heads int32 [n], in float32 [n, H], rounded to the
    product's dtype after each operation, as the plain network does it."""

    plan: _Plan
    row: Any
    head_dim: int
    cos: Any
    sin: Any
    u: Any
    q_factor: Any
    v_factor: Any

    def query(self, heads: Any) -> Any:
        return self._turned(heads, self.q_factor)

    def key(self, heads: Any) -> Any:
        return self._turned(heads + self.plan.kv_heads * self.plan.group, None)

    def value(self, heads: Any) -> Any:
        dims = lax.iota(jnp.int32, self.head_dim)
        return self._read(heads + self.plan.kv_heads * (self.plan.group + 1), dims, self.v_factor)

    def _turned(self, columns: Any, factor: Any) -> Any:
        """Heads number `columns` of the product, turned."""
        dims, half = lax.iota(jnp.int32, self.head_dim), self.plan.turned
        low, stays = dims < half, dims >= 2 * half
        # Each dim with its partner; a thread cannot reach another's registers, so both are read.
        partners = jnp.where(low, dims + half, jnp.where(stays, dims, dims - half))
        angles = jnp.where(stays, 0, jnp.where(low, dims, dims - half))
        cos, sin = self.cos[self.row, angles], self.sin[self.row, angles]
        x = self._read(columns, dims, factor)
        partner = self._read(columns, partners, factor)
        turned = x * cos[None] + partner * jnp.where(low, -sin, sin)[None]
        return jnp.where(stays[None], x, self._rounded(turned))

    def _read(self, columns: Any, dims: Any, factor: Any) -> Any:
        x = self.u[self.row, columns[:, None] * self.head_dim + dims[None]].astype(jnp.float32)
        return x if factor is None else self._rounded(x * factor[:, None])

    def _rounded(self, x: Any) -> Any:
        return x.astype(self.u.dtype).astype(jnp.float32)


def _stored(x: Any, scale: Any, dtype: Any) -> Any:
    """x float32 as the pool has it; beyond the largest float8 to that, since float8_e4m3fn has no infinity."""
    if dtype.itemsize > 1:
        return x.astype(dtype)
    largest = float(jnp.finfo(dtype).max)
    return jnp.clip(x / scale, -largest, largest).astype(dtype)


def _begun(places: int, query: Any, k: Any, v: Any, visible: Any) -> tuple[Any, Any, Any]:
    """The state of a loop over so many keys at a time, before it, of one query [n, H]: the first place has seen the key
    k [n, H] if it is visible, the others none."""
    here = (lax.iota(jnp.int32, places)[:, None] == 0) & visible
    tops = jnp.where(here, jnp.sum(query * k, axis=1)[None], jnp.float32(LOWEST))
    totals = jnp.broadcast_to(here, tops.shape).astype(jnp.float32)
    return tops, totals, jnp.where(here[:, :, None], v[None], jnp.float32(0))


class _Old(NamedTuple):
    """The positions of a row that the pool has, for a few kv heads."""

    plan: _Plan
    layer: Any
    row: Any
    heads: Any
    tables: Any
    prefix: Any
    k_pool: Any
    v_pool: Any

    def attend(
        self, queries: Sequence[Any], begun: Sequence[Any], length: Any, split: Any
    ) -> list[tuple[Any, Any, Any]]:
        """The part of share `split` of the entries below `length`, for each of the queries [n, H]; `begun` has what it
        begins with."""
        plan = self.plan
        # Behind the padding gap; `%` of negative numbers costs more here.
        gap_end = lax.div(self.prefix + (plan.page_size - 1), plan.page_size) * plan.page_size
        # What ends in the gap ends before it: the last entry is always visible.
        length = jnp.where((length > self.prefix) & (length <= gap_end), self.prefix, length)

        def visit(block: Any, states: Any) -> Any:
            entries = block * plan.block_k + lax.iota(jnp.int32, plan.block_k)
            visible = (entries < length) & ((entries < self.prefix) | (entries >= gap_end))
            # What may hold NaN is not read: the last entry is read again in its place, and gets no weight.
            k, v = self._read(jnp.where(visible, entries, length - 1))
            return tuple(
                softmax.attend(q, k, v, visible[:, None], *state) for q, state in zip(queries, states, strict=True)
            )

        blocks = lax.div(length + (plan.block_k - 1), plan.block_k)
        share = lax.div(blocks + (plan.splits - 1), plan.splits)
        begin = split * share
        states = lax.fori_loop(begin, jnp.minimum(begin + share, blocks), visit, tuple(begun))
        return [softmax.merge(*state) for state in states]

    def _read(self, entries: Any) -> tuple[Any, Any]:
        page = self.tables[self.row, lax.div(entries, self.plan.page_size)]
        place = (self.layer, page, lax.rem(entries, self.plan.page_size), self.heads, slice(None))
        # Both are asked for before either is widened.
        k, v = self.k_pool[place], self.v_pool[place]
        return k.astype(jnp.float32), v.astype(jnp.float32)
