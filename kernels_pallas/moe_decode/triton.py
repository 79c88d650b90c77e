"""The experts as two Pallas-Triton kernels, up and down, and a sum over each token's experts in XLA.

Memory is what they wait for. A program takes a few rows of one expert's matrix and reads them once for up to TOKENS
tokens; for more it reads them again, from the cache. It finds its tokens itself, in the list of all choices, so that
nothing is sorted or gathered beforehand. There is a program for each expert or, if those are fewer, for each choice,
of which the first of its expert does the work; those that find nothing to do end at once.

The dots take a whole tile of a tensor core's rows, however few tokens there are; there is time to spare for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.experts import gated_in_kernel
from kernels_pallas.triton_shim import dot, load, pallas_call, store

MOST_CHOICES = 1024  # every program looks at all of them
TOKENS = 16  # the fewest that a dot takes
# A program's share: rows of a matrix (in the up kernel as many of u and of g), and bytes of a row at a time. One token
# of a large model makes a few hundred programs, which an H200 runs all at once.
ROWS, BYTES = 32, 256
WARPS = 4
STAGES = 4  # two blocks are on their way while one is used (read off the PTX)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Static sizes of one kernel: choices (T * k), experts (E), rows and columns of a block, columns of the matrix."""

    choices: int
    experts: int
    rows: int
    columns: int
    width: int


def refusals(down: jax.Array, experts: jax.Array) -> list[str]:
    """Why the kernels cannot take these shapes and dtypes on any device."""
    reasons = [f"{size} rows or columns are not a multiple of 16" for size in down.shape[1:] if size % 16]
    if experts.size > MOST_CHOICES:
        reasons.append(f"{experts.size} choices of experts are more than {MOST_CHOICES}")
    return reasons


def moe_decode(
    x: jax.Array,
    up: jax.Array,
    down: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    *,
    up_scale: jax.Array | None,
    down_scale: jax.Array | None,
    interpret: bool,
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.moe_decode.api`."""
    call = partial(_call, experts.reshape(-1), interpret=interpret)
    up_kernel = partial(_up, experts.shape[1])
    hidden = call(up_kernel, "moe_decode_up", x, up, up_scale, size=down.shape[2], dtype=x.dtype)
    results = call(_down, "moe_decode_down", hidden, down, down_scale, size=x.shape[1], dtype=jnp.float32)
    return jnp.sum(results.reshape(*experts.shape, -1) * weights[:, :, None], axis=1).astype(x.dtype)


def _call(
    experts: jax.Array,
    kernel: Callable[..., None],
    name: str,
    inputs: jax.Array,
    matrices: jax.Array,
    scale: jax.Array | None,
    *,
    size: int,
    dtype: jax.typing.DTypeLike,
    interpret: bool,
) -> jax.Array:
    """One kernel: [T * k, size], a line a choice."""
    width = matrices.shape[2]
    rows, columns = _block(size, ROWS), _block(width, BYTES // matrices.dtype.itemsize)
    plan = _Plan(experts.size, matrices.shape[0], rows, columns, width)
    run = pallas_call(
        partial(kernel, plan),
        name=name,
        grid=(size // rows, min(plan.choices, plan.experts)),
        out_shape=jax.ShapeDtypeStruct((experts.size, size), dtype),
        warps=WARPS,
        stages=STAGES,
        interpret=interpret,
    )
    return run(experts, inputs, matrices, *(() if scale is None else (scale,)))


def _block(size: int, most: int) -> int:
    """The largest power of two that divides `size`, `most` at most."""
    return min(size & -size, most)


def _up(top: int, plan: _Plan, experts_ref, x_ref, up_ref, *refs: Any) -> None:
    """Writes a block of gelu(u) * (g + 1) for all tokens of an expert; `top` is k."""
    *scale_refs, out_ref = refs
    first = pl.program_id(0) * plan.rows
    u_rows, g_rows = (pl.ds(start, plan.rows) for start in (first, up_ref.shape[1] // 2 + first))

    def visit(expert: Any, choices: Any) -> None:
        u, g = _products(plan, x_ref, lax.div(choices, top), up_ref, expert, (u_rows, g_rows))
        for scale_ref in scale_refs:
            u, g = u * scale_ref[expert, u_rows][None], g * scale_ref[expert, g_rows][None]
        _write(out_ref, choices, first, gated_in_kernel(u, g))

    _for_tokens(plan, experts_ref, visit)


def _down(plan: _Plan, experts_ref, hidden_ref, down_ref, *refs: Any) -> None:
    """Writes a block of an expert's result for all its tokens."""
    *scale_refs, out_ref = refs
    first = pl.program_id(0) * plan.rows
    rows = pl.ds(first, plan.rows)

    def visit(expert: Any, choices: Any) -> None:
        (result,) = _products(plan, hidden_ref, choices, down_ref, expert, (rows,))
        for scale_ref in scale_refs:
            result = result * scale_ref[expert, rows][None]
        _write(out_ref, choices, first, result)

    _for_tokens(plan, experts_ref, visit)


def _for_tokens(plan: _Plan, experts_ref: Any, visit: Callable[[Any, Any], None]) -> None:
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
        count = jnp.where(earlier == 0, count, 0)
    place = jnp.where(mine > 0, jnp.cumsum(mine) - 1, -1)

    def group(i: Any, _: None) -> None:
        wanted = i * TOKENS + lax.iota(jnp.int32, TOKENS)
        choices = jnp.sum(jnp.where(place[None, :] == wanted[:, None], number[None, :], 0), axis=1)
        visit(expert, jnp.where(wanted < count, choices, plan.choices))

    lax.fori_loop(0, lax.div(count + (TOKENS - 1), TOKENS), group, None)


def _products(
    plan: _Plan, in_ref: Any, lines: Any, matrices_ref: Any, expert: Any, blocks: tuple[Any, ...]
) -> tuple[jax.Array, ...]:
    """Lines int32 [TOKENS] of in_ref times each block of an expert's rows: float32 [TOKENS, rows].

    Lines behind the last give zeros and are not read.
    """
    # Without it float32 would be TF32.
    precision = lax.Precision.HIGHEST if in_ref.dtype == jnp.float32 else None

    def step(i: Any, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        columns = i * plan.columns + lax.iota(jnp.int32, plan.columns)
        x = load(in_ref.at[lines[:, None], columns[None, :]], mask=lines[:, None] < in_ref.shape[0], other=0)
        span = pl.ds(i * plan.columns, plan.columns)
        parts = [matrices_ref[expert, block, span].astype(x.dtype) for block in blocks]
        return tuple(
            total + dot(x, part, trans_b=True, precision=precision) for total, part in zip(sums, parts, strict=True)
        )

    zeros = jnp.zeros((TOKENS, plan.rows), jnp.float32)
    return lax.fori_loop(0, plan.width // plan.columns, step, (zeros,) * len(blocks))


def _write(out_ref: Any, lines: Any, first: Any, values: jax.Array) -> None:
    """Writes lines [TOKENS] of out_ref from column `first` on; none for lines behind the last."""
    columns = first + lax.iota(jnp.int32, values.shape[1])
    inside = lines[:, None] < out_ref.shape[0]
    store(out_ref.at[lines[:, None], columns[None, :]], values.astype(out_ref.dtype), mask=inside)
