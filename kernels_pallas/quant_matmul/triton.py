"""The product as one Pallas-Triton kernel: a program takes some rows of the matrix, some rows of x, a share of columns.

It goes through its columns in blocks that no group crosses, widens the stored numbers in registers, and multiplies a
block's sum of products by the group's factor. Nothing of the matrix is written anywhere; few rows of x read it once.

The matrix stands on the left of every dot: from registers, where it was widened, and at least 64 rows of it, as the
tensor cores of Hopper want it there; on the right they take as few rows of x as there are.

int4 comes in words of 8 numbers, as `kernels_pallas.packed` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.packed import by_place, unpacked, words
from kernels_pallas.products import block, tile
from kernels_pallas.triton_shim import dot, load, pallas_call, store

FEW = 32  # rows of x that one program takes together with all that it reads of the matrix


@dataclass(frozen=True, slots=True)
class Tuning:
    """What may be varied on a GPU.

    Attributes:
      rows: of the matrix that a program takes at most, a power of two.
      lines: rows of x that it takes at most.
      columns: at a time; a group is never crossed.
      programs: a multiprocessor's share, which sets how often columns are split.
      max_splits: bound on that, since who adds the parts reads every one.
    """

    rows: int
    lines: int
    columns: int = 128
    programs: int = 2
    max_splits: int = 16
    warps: int = 4
    stages: int = 4


SMALL = Tuning(rows=64, lines=FEW)
LARGE = Tuning(rows=128, lines=128, columns=64, programs=1, max_splits=2, warps=8, stages=3)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Static sizes: rows of the matrix and of x, columns of a block, bits of a word of them (0: they
    are numbers by themselves), blocks of a group, of a share and of all."""

    rows: int
    lines: int
    columns: int
    bits: int
    of_group: int
    share: int
    blocks: int


def refusals(matrix: jax.Array, scale: jax.Array) -> list[str]:
    """Why the kernel cannot take these shapes on any device."""
    reasons = [f"{matrix.shape[0]} rows are not a multiple of 16"] if matrix.shape[0] % 16 else []
    group, least = matrix.shape[1] // scale.shape[1], 32 if matrix.dtype == jnp.int4 else 16
    return reasons + ([f"groups of {group} columns are not a multiple of {least}"] if group % least else [])


def quant_matmul(
    x: jax.Array,
    matrix: jax.Array,
    scale: jax.Array,
    zero: jax.Array | None,
    *,
    out: jnp.dtype,
    splits: int | None,
    cores: int,
    interpret: bool,
    tuning: Tuning | None = None,
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.quant_matmul.api`."""
    size, width = matrix.shape
    tuning = tuning or (SMALL if len(x) <= FEW else LARGE)
    lines = min(tile(len(x)), tuning.lines)
    rows, group = block(size, tuning.rows), width // scale.shape[1]
    columns = block(group, tuning.columns)
    bits = min(32, columns // 4) if matrix.dtype == jnp.int4 else 0
    blocks, programs = width // columns, size // rows * pl.cdiv(len(x), lines)
    splits = splits or max(1, min(tuning.programs * cores // programs, tuning.max_splits, blocks))
    plan = _Plan(rows, lines, columns, bits, group // columns, pl.cdiv(blocks, splits), blocks)
    call = pallas_call(
        partial(_kernel, plan),
        name="quant_matmul",
        grid=(pl.cdiv(len(x), lines), size // rows, splits),
        out_shape=jax.ShapeDtypeStruct((splits, len(x), size), out if splits == 1 else jnp.float32),
        warps=tuning.warps,
        stages=tuning.stages,
        interpret=interpret,
    )
    if bits := plan.bits:
        x, matrix = by_place(x, bits // 4), words(matrix, bits)
    parts = call(x, matrix, scale, *(() if zero is None else (zero,)))
    return parts[0] if splits == 1 else jnp.sum(parts, axis=0).astype(out)


def _kernel(plan: _Plan, x_ref: Any, matrix_ref: Any, scale_ref: Any, *refs: Any) -> None:
    *zero_refs, out_ref = refs
    lines = pl.program_id(0) * plan.lines + lax.iota(jnp.int32, plan.lines)
    first, split = pl.program_id(1) * plan.rows, pl.program_id(2)
    rows = pl.ds(first, plan.rows)
    begin, factors = split * plan.share, (scale_ref, *zero_refs)

    def of_group(i: Any) -> tuple[jax.Array, ...]:
        group = lax.div(jnp.minimum(i, plan.blocks - 1), plan.of_group)
        return tuple(ref[rows, group].astype(jnp.float32) for ref in factors)

    def step(i: Any, carry: tuple[jax.Array, tuple[jax.Array, ...]]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        sums, (scale, *zero) = carry
        # Triton fetches nothing ahead that is so narrow.
        later = of_group(i + 1)
        products, fed = _block(plan, x_ref, matrix_ref, rows, lines, i)
        for each in zero:
            products -= each[:, None] * fed[None]
        return sums + products * scale[:, None], later

    zeros = jnp.zeros((plan.rows, plan.lines), jnp.float32)
    end = jnp.minimum(begin + plan.share, plan.blocks)
    sums, _ = lax.fori_loop(begin, end, step, (zeros, of_group(begin)))
    columns = (first + lax.iota(jnp.int32, plan.rows))[:, None]
    inside = (lines < out_ref.shape[1])[None]
    store(out_ref.at[split, lines[None], columns], sums.astype(out_ref.dtype), mask=inside)


def _block(
    plan: _Plan, x_ref: Any, matrix_ref: Any, rows: Any, lines: jax.Array, i: Any
) -> tuple[jax.Array, jax.Array]:
    """Of block i of the columns: float32 (matrix times x [rows, lines], the sum of x [lines])."""
    size = plan.columns // max(1, plan.bits // 4)
    columns = (i * size + lax.iota(jnp.int32, size))[None]
    inside = (lines < x_ref.shape[-2])[:, None]
    stored = matrix_ref[rows, pl.ds(i * size, size)]
    # Without it float32 would be TF32.
    precision = lax.Precision.HIGHEST if x_ref.dtype == jnp.float32 else None
    products = jnp.zeros((plan.rows, plan.lines), jnp.float32)
    fed = jnp.zeros(plan.lines, jnp.float32)
    for place, matrix in unpacked(stored, plan.bits) if plan.bits else (((), stored),):
        x = load(x_ref.at[(*place, lines[:, None], columns)], mask=inside, other=0)
        products += dot(matrix.astype(x.dtype), x, trans_b=True, precision=precision)
        fed += jnp.sum(x.astype(jnp.float32), axis=1)
    return products, fed
