"""The experts as two Pallas-Triton kernels, up and down, and a sum over each token's experts in XLA.

Memory is what they wait for. A program takes a few rows of one expert's matrix and reads them once for up to TOKENS
tokens; for more it reads them again, from the cache. It finds its tokens itself, in the list of all choices, so that
nothing is sorted or gathered beforehand. There is a program for each expert or, if those are fewer, for each choice,
of which the first of its expert does the work; those that find nothing to do end at once. A choice of -1 is no
program's: its lines are never written, and the sum does not look at them.

The dots take a whole tile of a tensor core's rows, however few tokens there are; there is time to spare for that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.expert_pairs import Added, Pairs, added, factors_of, product
from kernels_pallas.experts import Beside, Blocks, Plan, combined, gated_in_kernel
from kernels_pallas.products import block
from kernels_pallas.triton_shim import load, pallas_call, store

MOST_CHOICES = 1024  # every program looks at all of them
TOKENS = 16  # the fewest that a dot takes
# A program's share: rows of a matrix (in the up kernel as many of u and of g), and bytes of a row at a time. One token
# of a large model makes a few hundred programs, which an H200 runs all at once.
ROWS, BYTES = 32, 256
WARPS = 4
STAGES = 4  # two blocks are on their way while one is used (read off the PTX)


def refusals(experts: jax.Array) -> list[str]:
    """Why the kernels cannot take so many choices on any device."""
    return [f"{experts.size} choices of experts are more than {MOST_CHOICES}"] if experts.size > MOST_CHOICES else []


def moe_decode(
    x: jax.Array,
    up: jax.Array,
    down: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    beside: Beside,
    *,
    interpret: bool,
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.moe_decode.api`."""

    def add(pairs: Pairs | None, x: jax.Array) -> Added | None:
        if pairs is None or beside.slots is None:
            return None
        return added(pairs, experts, beside.slots[:, None], beside.slots, x)

    call = partial(_call, experts, interpret=interpret)
    up_add = add(beside.up_pairs, x[:, None])
    hidden = call(_up, "moe_decode_up", x, up, beside.up_scale, up_add, size=down.shape[2], dtype=x.dtype)
    down_add = add(beside.down_pairs, hidden.reshape(*experts.shape, -1))
    inputs = (hidden, down, beside.down_scale, down_add)
    results = call(_down, "moe_decode_down", *inputs, size=x.shape[1], dtype=jnp.float32)
    return combined(results, experts, weights).astype(x.dtype)


def _call(
    experts: jax.Array,
    kernel: Callable[..., None],
    name: str,
    inputs: jax.Array,
    matrices: jax.Array,
    scale: jax.Array | None,
    add: Added | None,
    *,
    size: int,
    dtype: jax.typing.DTypeLike,
    interpret: bool,
) -> jax.Array:
    """One kernel: [T * k, size], a line a choice."""
    columns, rows = Blocks.of(matrices, scale, BYTES // matrices.dtype.itemsize), block(size, ROWS)
    plan = Plan(experts.size, experts.shape[1], matrices.shape[0], rows, columns)
    inputs, matrices = columns.packed(inputs, matrices)
    run = pallas_call(
        partial(kernel, plan),
        name=name,
        grid=(size // rows, min(plan.choices, plan.experts)),
        out_shape=jax.ShapeDtypeStruct((experts.size, size), dtype),
        warps=WARPS,
        stages=STAGES,
        interpret=interpret,
    )
    return run(experts.reshape(-1), inputs, matrices, scale, add)


def _up(plan: Plan, experts_ref, x_ref, up_ref, scale_ref, add: Added | None, out_ref) -> None:
    """Writes a block of gelu(u) * (g + 1) for all tokens of an expert."""
    first = pl.program_id(0) * plan.rows
    u_rows, g_rows = (pl.ds(start, plan.rows) for start in (first, up_ref.shape[1] // 2 + first))

    def visit(expert: Any, choices: Any) -> None:
        tokens = lax.div(choices, plan.top)
        u, g = _products(plan, x_ref, tokens, up_ref, scale_ref, expert, (u_rows, g_rows))
        if add is not None:
            u, g = _sums(plan, add, expert, (u_rows, g_rows), choices, (u, g), x_ref.dtype)
        _write(out_ref, choices, first, gated_in_kernel(u, g))

    _for_tokens(plan, experts_ref, visit)


def _down(plan: Plan, experts_ref, hidden_ref, down_ref, scale_ref, add: Added | None, out_ref) -> None:
    """Writes a block of an expert's result for all its tokens."""
    first = pl.program_id(0) * plan.rows
    rows = pl.ds(first, plan.rows)

    def visit(expert: Any, choices: Any) -> None:
        (result,) = _products(plan, hidden_ref, choices, down_ref, scale_ref, expert, (rows,))
        if add is not None:
            (result,) = _sums(plan, add, expert, (rows,), choices, (result,), hidden_ref.dtype)
        _write(out_ref, choices, first, result)

    _for_tokens(plan, experts_ref, visit)


def _sums(
    plan: Plan, add: Added, expert: Any, blocks: tuple[Any, ...], choices: Any, sums: tuple[jax.Array, ...], dtype: Any
) -> list[jax.Array]:
    """Sums [TOKENS, rows] of blocks of an expert's rows, plus what the choices' pairs add."""
    x, factors = factors_of(add, expert, blocks, choices, lax.div(choices, plan.top), dtype)
    return [total + product(x, factor) for total, factor in zip(sums, factors, strict=True)]


def _for_tokens(plan: Plan, experts_ref: Any, visit: Callable[[Any, Any], None]) -> None:
    """Calls visit(expert, choices int32 [TOKENS]) until it has seen all choices of the program's expert.

    Choices are numbered t * k + j; T * k, which is none, fills up the last call's.
    """
    slot = pl.program_id(1)
    number = lax.iota(jnp.int32, pl.next_power_of_2(plan.choices))
    chosen = experts_ref[jnp.minimum(number, plan.choices - 1)]
    by_choice = plan.choices < plan.experts
    expert = experts_ref[slot] if by_choice else slot
    mine = ((chosen == expert) & (number < plan.choices)).astype(jnp.int32)
    count = jnp.sum(mine)
    if by_choice:
        earlier = jnp.sum(jnp.where(number < slot, mine, 0))
        count = jnp.where((earlier == 0) & (expert >= 0), count, 0)
    place = jnp.where(mine > 0, jnp.cumsum(mine) - 1, -1)

    def group(i: Any, _: None) -> None:
        wanted = i * TOKENS + lax.iota(jnp.int32, TOKENS)
        choices = jnp.sum(jnp.where(place[None, :] == wanted[:, None], number[None, :], 0), axis=1)
        visit(expert, jnp.where(wanted < count, choices, plan.choices))

    lax.fori_loop(0, lax.div(count + (TOKENS - 1), TOKENS), group, None)


def _products(
    plan: Plan, in_ref: Any, lines: Any, matrices_ref: Any, scale_ref: Any, expert: Any, blocks: tuple[Any, ...]
) -> tuple[jax.Array, ...]:
    """Lines int32 [TOKENS] of in_ref times each block of an expert's rows: float32 [TOKENS, rows].

    Lines behind the last give zeros and are not read.
    """
    way = plan.columns
    inside = lines[:, None] < in_ref.shape[-2]
    zeros = (jnp.zeros((TOKENS, plan.rows), jnp.float32),) * len(blocks)

    def add(i: Any, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        columns = i * way.size + lax.iota(jnp.int32, way.size)
        stored = [matrices_ref[expert, block, pl.ds(i * way.size, way.size)] for block in blocks]
        for place, parts in way.numbers(stored):
            x = load(in_ref.at[(*place, lines[:, None], columns[None, :])], mask=inside, other=0)
            sums = tuple(total + product(x, part.astype(x.dtype)) for total, part in zip(sums, parts, strict=True))
        return sums

    def add_scaled(i: Any, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        factors = [way.factors(scale_ref, expert, block, i).astype(jnp.float32)[None] for block in blocks]
        parts = zip(sums, add(i, zeros), factors, strict=True)
        return tuple(total + part * factor for total, part, factor in parts)

    sums = lax.fori_loop(0, way.count, add_scaled if way.of_group else add, zeros)
    if scale_ref is None or way.of_group:
        return sums
    return tuple(total * scale_ref[expert, block][None] for total, block in zip(sums, blocks, strict=True))


def _write(out_ref: Any, lines: Any, first: Any, values: jax.Array) -> None:
    """Writes lines [TOKENS] of out_ref from column `first` on; none for lines behind the last."""
    columns = first + lax.iota(jnp.int32, values.shape[1])
    inside = lines[:, None] < out_ref.shape[0]
    store(out_ref.at[lines[:, None], columns[None, :]], values.astype(out_ref.dtype), mask=inside)
