"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from kernels_pallas.dispatch import Target, choose
from kernels_pallas.products import DTYPES
from kernels_pallas.quant_matmul import reference, triton

STORED = (jnp.int4, jnp.int8, jnp.float8_e4m3fn)
SCALES = (jnp.bfloat16, jnp.float32)


def quant_matmul(
    x: jax.Array,
    matrix: jax.Array,
    scale: jax.Array,
    zero: jax.Array | None = None,
    *,
    out: DTypeLike | None = None,
    splits: int | None = None,
    backend: str | None = None,
    target: Target | None = None,
) -> jax.Array:
    """x times a matrix of few bits: of element [n, k] the value is (matrix[n, k] - zero[n, g]) * scale[n, g], where g
    is the group of neighbouring columns that k is in.

    Products with the stored numbers are exact in x's dtype and summed in float32; the factor of a group meets its sum.

    Args:
      x: [B, K], bfloat16 or float32.
      matrix: [N, K], int4, int8 or float8_e4m3fn.
      scale: [N, G], bfloat16 or float32; a group has K / G columns.
      zero: the same shape and dtype; None for zeros.
      out: dtype of the result, by default x's.
      splits: programs that share the columns of a row; None chooses by the shapes and the device.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      [B, N].

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    _check(x, matrix, scale, zero, splits)
    target = target or Target.of(jax.devices()[0])
    chosen = choose("quant_matmul", backend, target, triton.refusals(matrix, scale), (matrix,))
    out = out or x.dtype
    if chosen == "reference":
        return reference.quant_matmul(x, matrix, scale, zero).astype(out)
    options = {"splits": splits, "cores": target.cores, "interpret": chosen == "interpret"}
    return triton.quant_matmul(x, matrix, scale, zero, out=jnp.dtype(out), **options)


def _check(x, matrix, scale, zero, splits) -> None:
    if x.ndim != 2 or 0 in x.shape or x.dtype not in DTYPES:
        raise ValueError(f"x must be [B, K] in bfloat16 or float32, not {x.dtype}{list(x.shape)}")
    if matrix.ndim != 2 or matrix.shape[1] != x.shape[1] or matrix.dtype not in STORED:
        names = ", ".join(jnp.dtype(dtype).name for dtype in STORED)
        raise ValueError(f"matrix must be [N, {x.shape[1]}] in one of {names}, not {matrix.dtype}{list(matrix.shape)}")
    if scale.ndim != 2 or scale.shape[0] != matrix.shape[0] or scale.dtype not in SCALES:
        raise ValueError(
            f"scale must be [{matrix.shape[0]}, G] in bfloat16 or float32, not {scale.dtype}{list(scale.shape)}"
        )
    if not scale.shape[1] or x.shape[1] % scale.shape[1]:
        raise ValueError(f"{x.shape[1]} columns are no {scale.shape[1]} groups")
    if zero is not None and (zero.shape, zero.dtype) != (scale.shape, scale.dtype):
        raise ValueError(f"zero must be as scale, {scale.dtype}{list(scale.shape)}, not {zero.dtype}{list(zero.shape)}")
    if splits is not None and splits < 1:
        raise ValueError(f"splits must be at least 1, not {splits}")
