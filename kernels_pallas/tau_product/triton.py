"""The product as one Pallas-Triton kernel: a program takes some rows of the matrix and one block of their columns.

There are few rows, so only the columns make enough programs for a chip, and gelu is computed but once or twice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.products import MOST_ROWS, block, rows_of, write_rows
from kernels_pallas.triton_shim import dot, load, pallas_call

ROWS = 32  # of the matrix that a program takes at most
BYTES = 256  # of a row of it: one block, one part
MOST_PARTS = 256  # whoever adds them keeps all in registers
WARPS = 4


def refusals(u: jax.Array, matrix: jax.Array) -> list[str]:
    """Why the kernel cannot take these shapes on any device."""
    width = matrix.shape[1]
    if width % 16:
        return [f"{width} columns are not a multiple of 16"]
    parts = width // _columns(matrix)
    reasons = [f"{parts} parts are more than {MOST_PARTS}"] if parts > MOST_PARTS else []
    return reasons + ([f"{u.shape[0]} rows are more than {MOST_ROWS}"] if u.shape[0] > MOST_ROWS else [])


def tau_product(u: jax.Array, matrix: jax.Array, *, interpret: bool) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.tau_product.api`."""
    size, width = matrix.shape
    rows, columns = min(ROWS, max(16, pl.next_power_of_2(size))), _columns(matrix)
    call = pallas_call(
        partial(_kernel, rows, columns),
        name="tau_product",
        grid=(-(-size // rows), width // columns),
        out_shape=jax.ShapeDtypeStruct((width // columns, u.shape[0], size), jnp.float32),
        warps=WARPS,
        stages=1,
        interpret=interpret,
    )
    return call(u, matrix)


def _columns(matrix: jax.Array) -> int:
    """Of a block."""
    return block(matrix.shape[1], BYTES // matrix.dtype.itemsize)


def _kernel(rows: int, columns: int, u_ref: Any, matrix_ref: Any, out_ref: Any) -> None:
    first, part = pl.program_id(0) * rows, pl.program_id(1)
    places = part * columns + lax.iota(jnp.int32, columns)
    lines = (first + lax.iota(jnp.int32, rows))[:, None]
    inside = lines < matrix_ref.shape[0]
    # Both are asked for before gelu is computed.
    x = rows_of(u_ref, places)
    matrix = load(matrix_ref.at[lines, places[None]], mask=inside, other=0)
    # Without it float32 would be TF32.
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    x = gelu(x.astype(jnp.float32)).astype(x.dtype)
    write_rows(out_ref, (part,), first, dot(x, matrix, trans_b=True, precision=precision))


def gelu(x: jax.Array) -> jax.Array:
    """The gelu with the error function, of float32: x times the share of a normal distribution below x.

    Triton has no error function; this one (Abramowitz and Stegun, 7.1.26) is off by at most 1.5e-7, and goes to zero
    where the share does.
    """
    z = jnp.abs(x) * 0.5**0.5
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    above = 0.5 * series * jnp.exp(-z * z)  # the share above |x|
    return x * jnp.where(x < 0, above, 1 - above)
