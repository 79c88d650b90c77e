"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax

from kernels_pallas.dispatch import Target, choose
from kernels_pallas.output_product import reference, triton
from kernels_pallas.products import DTYPES, check_scale


def output_product(
    a: jax.Array,
    u: jax.Array,
    matrix: jax.Array,
    *,
    scale: jax.Array | None = None,
    splits: int | None = None,
    backend: str | None = None,
    target: Target | None = None,
) -> jax.Array:
    """[a | the last F columns of u] times a matrix, for few rows, in parts whose sum is the product.

    Sums are float32. Whoever takes the parts adds them (`kernels_pallas.residual_norm`), so that no launch of its own
    does.

    Args:
      a: [B, A], bfloat16 or float32: what attention gave.
      u: [B, Q + F] in a's dtype: what `kernels_pallas.input_product` gave. Taken whole: a slice would be a copy.
      matrix: [D, A + F] in a's dtype, or in float8_e4m3fn or int8.
      scale: float32 [D], for 8-bit matrices alone: value = stored * scale of the row.
      splits: programs that share the columns of a row, S; None chooses by D and the device. `reference` makes 1.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      float32 [S, B, D].

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    _check(a, u, matrix, splits)
    check_scale(a, matrix, scale)
    target = target or Target.of(jax.devices()[0])
    chosen = choose("output_product", backend, target, triton.refusals(a, matrix), (matrix,))
    if chosen == "reference":
        return reference.output_product(a, u, matrix, scale)
    splits = splits or triton.choose_splits(a, matrix, target.cores)
    return triton.output_product(a, u, matrix, scale, splits=splits, interpret=chosen == "interpret")


def _check(a, u, matrix, splits) -> None:
    if a.ndim != 2 or 0 in a.shape or a.dtype not in DTYPES:
        raise ValueError(f"a must be [B, A] in bfloat16 or float32, not {a.dtype}{list(a.shape)}")
    rows, width = a.shape
    if matrix.ndim != 2 or matrix.shape[1] <= width:
        raise ValueError(f"matrix must be [D, {width} + F], not {matrix.dtype}{list(matrix.shape)}")
    hidden = matrix.shape[1] - width
    if u.ndim != 2 or u.shape[0] != rows or u.shape[1] < hidden or u.dtype != a.dtype:
        raise ValueError(f"u must be {a.dtype} [{rows}, Q + {hidden}], not {u.dtype}{list(u.shape)}")
    if splits is not None and splits < 1:
        raise ValueError(f"splits must be at least 1, not {splits}")
