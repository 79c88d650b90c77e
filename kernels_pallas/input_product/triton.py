"""The product as one Pallas-Triton kernel: a program takes some rows of the matrix, and all of x with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.dispatch import Index
from kernels_pallas.products import add_products, block, gelu, rows_of, rows_of_matrix, tile, write_rows
from kernels_pallas.triton_shim import pallas_call


@dataclass(frozen=True, slots=True)
class Tuning:
    """What may be varied on a GPU.

    Attributes:
      rows: of the matrix that a program takes at most, a power of two; None for `products.rows_of_matrix`.
      programs: a multiprocessor's share at least; where the rows do not make so many, a program takes fewer of them.
      bytes: of a row of the matrix at a time.
    """

    rows: int | None = None
    programs: int = 1
    bytes: int = 256
    warps: int = 4
    stages: int = 4


def input_product(
    x: jax.Array,
    matrix: jax.Array,
    bias: jax.Array,
    scale: jax.Array | None = None,
    *,
    layer: Index,
    gelu_from: int,
    cores: int,
    interpret: bool,
    tuning: Tuning = Tuning(),
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.input_product.api`."""
    size, width = matrix.shape
    rows = block(size, tuning.rows) if tuning.rows else rows_of_matrix(size, x.shape[0])
    while rows > 16 and size // rows < tuning.programs * cores:
        rows //= 2
    columns = block(width, tuning.bytes // matrix.dtype.itemsize)
    call = pallas_call(
        partial(_kernel, rows=rows, columns=columns, gelu_from=gelu_from),
        name="input_product",
        grid=(size // rows,),
        out_shape=jax.ShapeDtypeStruct((x.shape[0], size), x.dtype),
        warps=tuning.warps,
        stages=tuning.stages,
        interpret=interpret,
    )
    # An operand, not a constant of the kernel: all layers share one.
    return call(jnp.full(1, layer, jnp.int32), x, matrix, bias, *(() if scale is None else (scale,)))


def _kernel(
    layer_ref: Any, x_ref: Any, matrix_ref: Any, bias_ref: Any, *refs: Any, rows: int, columns: int, gelu_from: int
) -> None:
    *scale_refs, out_ref = refs
    first = pl.program_id(0) * rows
    mine = pl.ds(first, rows)
    bias = bias_ref[layer_ref[0], mine].astype(jnp.float32)
    sums = jnp.zeros((tile(x_ref.shape[0]), rows), jnp.float32)
    blocks = matrix_ref.shape[1] // columns
    sums = add_products(sums, 0, blocks, columns, partial(rows_of, x_ref), matrix_ref, mine)
    for scale_ref in scale_refs:
        sums *= scale_ref[mine][None]
    out = (sums + bias[None]).astype(out_ref.dtype).astype(jnp.float32)
    through = (first + lax.iota(jnp.int32, rows) >= gelu_from)[None]
    write_rows(out_ref, (), first, jnp.where(through, gelu(out), out))
