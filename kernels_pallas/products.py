"""What the products of a few rows have in common: x [B, K] times a matrix [N, K], of which every number is read once.

Memory is what they wait for. A program takes some rows of the matrix and goes through their columns in blocks, which
Triton fetches ahead. The dots take a whole tile of a tensor core's rows, however few rows x has: there is time to
spare for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.triton_shim import dot, load, store

MOST_ROWS = 32  # of x; beyond, XLA's products do as well
DTYPES = (jnp.bfloat16, jnp.float32)
SCALED_DTYPES = (jnp.float8_e4m3fn, jnp.int8)  # of matrices with a float32 factor a row


def refusals(x: jax.Array, matrix: jax.Array) -> list[str]:
    """Why no kernel can take these shapes on any device."""
    reasons = [f"{size} rows or columns are not a multiple of 16" for size in matrix.shape if size % 16]
    if x.shape[0] > MOST_ROWS:
        reasons.append(f"{x.shape[0]} rows are more than {MOST_ROWS}")
    return reasons


def check_scale(x: jax.Array, matrix: jax.Array, scale: jax.Array | None) -> None:
    """Raises ValueError unless a matrix [N, K] is in x's dtype, or in 8 bits with factors [N]."""
    if scale is None and matrix.dtype != x.dtype:
        raise ValueError(f"matrix must be {x.dtype} where it has no scale, not {matrix.dtype}")
    if scale is None:
        return
    if matrix.dtype not in SCALED_DTYPES:
        raise ValueError(f"scale goes with 8-bit matrices, this is {matrix.dtype}")
    if scale.shape != matrix.shape[:1] or scale.dtype != jnp.float32:
        raise ValueError(f"scale must be float32[{matrix.shape[0]}], not {scale.dtype}{list(scale.shape)}")


def scaled_product(x: jax.Array, matrix: jax.Array, scale: jax.Array | None) -> jax.Array:
    """x [B, K] times a matrix [N, K], of which factors [N] meet the sums, in plain jax.numpy: float32 [B, N]."""
    wide = matrix.astype(x.dtype)  # 8 bits are exact in bfloat16
    product = jnp.einsum("bk,nk->bn", x, wide, precision="highest", preferred_element_type=jnp.float32)
    return product if scale is None else product * scale[None]


def block(size: int, most: int) -> int:
    """The largest power of two that divides `size`, `most` at most."""
    return min(size & -size, most)


def tile(rows: int) -> int:
    """Rows of a dot for x of so many: a power of two from 16 on, the fewest that it takes."""
    return max(16, pl.next_power_of_2(rows))


def rows_of_matrix(size: int, batch: int) -> int:
    """Rows of a matrix of `size` that a program takes for so many rows of x, at most.

    Every program reads all of x, from the cache: with twice as many rows as a dot has that is never more than half of
    what it reads of the matrix.
    """
    return block(size, 2 * tile(batch))


def gelu(x: jax.Array) -> jax.Array:
    """The gelu with tanh, of float32: x times the sigmoid of 2 z, which is (1 + tanh z) / 2."""
    z = x * (1 + 0.044715 * x * x) * math.sqrt(2 / math.pi)
    return x / (1 + jnp.exp(-2 * z))


def rows_of(ref: Any, columns: jax.Array) -> jax.Array:
    """All rows of a reference [B, K] in these columns, zeros behind the last: [tile(B), len(columns)]."""
    lines = lax.iota(jnp.int32, tile(ref.shape[0]))[:, None]
    return load(ref.at[lines, columns[None, :]], mask=lines < ref.shape[0], other=0)


def write_rows(ref: Any, place: tuple[Any, ...], first: Any, values: jax.Array) -> None:
    """Writes values [tile(B), n] to the rows of ref[place], which is [B, N], from column `first` on."""
    lines = lax.iota(jnp.int32, values.shape[0])[:, None]
    columns = first + lax.iota(jnp.int32, values.shape[1])[None, :]
    store(ref.at[(*place, lines, columns)], values.astype(ref.dtype), mask=lines < ref.shape[-2])


def add_products(
    sums: jax.Array,
    begin: Any,
    end: Any,
    columns: int,
    of_block: Callable[[jax.Array], jax.Array],
    matrix: Any,
    rows: Any,
) -> jax.Array:
    """sums float32 [tile, n] plus the products of blocks `begin` to `end` of so many columns.

    `of_block` of a block's columns is x there, [tile, columns]; `rows` are those of the reference `matrix`.
    """

    def step(i: Any, sums: jax.Array) -> jax.Array:
        span = pl.ds(i * columns, columns)
        x = of_block(i * columns + lax.iota(jnp.int32, columns))
        # Without it float32 would be TF32.
        precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
        return sums + dot(x, matrix[rows, span].astype(x.dtype), trans_b=True, precision=precision)

    return lax.fori_loop(begin, end, step, sums)
