"""The product as one Pallas-Triton kernel: a program takes some rows of the matrix and a share of its columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from kernels_pallas import products
from kernels_pallas.products import add_products, block, rows_of, rows_of_matrix, tile, write_rows
from kernels_pallas.triton_shim import pallas_call


@dataclass(frozen=True, slots=True)
class Tuning:
    """What may be varied on a GPU.

    Attributes:
      rows: of the matrix that a program takes at most, a power of two; None for `products.rows_of_matrix`.
      programs: a multiprocessor's share, which sets how often columns are split.
      max_splits: bound on that, since who adds the parts reads every one.
      bytes: of a row of the matrix at a time.
      stages: of the pipeline that fetches blocks; None for as many as an L40S has shared memory for. There are two
        programs a multiprocessor, so each has to ask for much.
    """

    rows: int | None = None
    programs: int = 2
    max_splits: int = 16
    bytes: int = 256
    warps: int = 4
    stages: int | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """Static sizes: rows and columns of a block, blocks of `a` and of both, where F begins in u, blocks of a share."""

    rows: int
    columns: int
    attended: int
    blocks: int
    offset: int
    share: int


def refusals(a: jax.Array, matrix: jax.Array) -> list[str]:
    """Why the kernel cannot take these shapes on any device."""
    reasons = products.refusals(a, matrix)
    return reasons + ([f"{a.shape[1]} columns of a are not a multiple of 16"] if a.shape[1] % 16 else [])


def choose_splits(a: jax.Array, matrix: jax.Array, cores: int, tuning: Tuning = Tuning()) -> int:
    """How many programs share the columns of a row."""
    rows, columns = _block(a, matrix, tuning)
    wanted = tuning.programs * cores // (matrix.shape[0] // rows)
    return max(1, min(wanted, tuning.max_splits, matrix.shape[1] // columns))


def output_product(
    a: jax.Array,
    u: jax.Array,
    matrix: jax.Array,
    scale: jax.Array | None = None,
    *,
    splits: int,
    interpret: bool,
    tuning: Tuning = Tuning(),
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.output_product.api`."""
    size, width = matrix.shape
    rows, columns = _block(a, matrix, tuning)
    blocks = width // columns
    offset = u.shape[1] - (width - a.shape[1])
    plan = _Plan(rows, columns, a.shape[1] // columns, blocks, offset, -(-blocks // splits))
    call = pallas_call(
        partial(_kernel, plan),
        name="output_product",
        grid=(size // rows, splits),
        out_shape=jax.ShapeDtypeStruct((splits, a.shape[0], size), jnp.float32),
        warps=tuning.warps,
        stages=tuning.stages or (6 if tile(a.shape[0]) == 16 else 4),
        interpret=interpret,
    )
    return call(a, u, matrix, *(() if scale is None else (scale,)))


def _block(a: jax.Array, matrix: jax.Array, tuning: Tuning) -> tuple[int, int]:
    """Rows of the matrix, and columns at a time: no block has both of `a` and of the MLP."""
    columns = math.gcd(a.shape[1], matrix.shape[1])
    size = matrix.shape[0]
    rows = block(size, tuning.rows) if tuning.rows else rows_of_matrix(size, a.shape[0])
    return rows, block(columns, tuning.bytes // matrix.dtype.itemsize)


def _kernel(plan: _Plan, a_ref: Any, u_ref: Any, matrix_ref: Any, *refs: Any) -> None:
    *scale_refs, out_ref = refs
    first, split = pl.program_id(0) * plan.rows, pl.program_id(1)
    begin = split * plan.share
    end = jnp.minimum(begin + plan.share, plan.blocks)
    add = partial(add_products, columns=plan.columns, matrix=matrix_ref, rows=pl.ds(first, plan.rows))

    def of_mlp(columns: jax.Array) -> jax.Array:
        return rows_of(u_ref, columns + (plan.offset - plan.attended * plan.columns))

    sums = jnp.zeros((tile(a_ref.shape[0]), plan.rows), jnp.float32)
    sums = add(sums, begin, jnp.minimum(end, plan.attended), of_block=partial(rows_of, a_ref))
    sums = add(sums, jnp.maximum(begin, plan.attended), end, of_block=of_mlp)
    for scale_ref in scale_refs:
        sums *= scale_ref[pl.ds(first, plan.rows)][None]
    write_rows(out_ref, (split,), first, sums)
