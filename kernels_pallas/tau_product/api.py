"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax

from kernels_pallas.dispatch import Target, choose
from kernels_pallas.products import DTYPES
from kernels_pallas.tau_product import reference, triton


def tau_product(
    u: jax.Array, matrix: jax.Array, *, backend: str | None = None, target: Target | None = None
) -> jax.Array:
    """gelu of the first Q columns of u times a matrix, for few rows, in parts whose sum is the product.

    gelu is the one with the error function, computed in float32 and rounded to u's dtype; sums are float32. Whoever
    takes the parts adds them (`kernels_pallas.step_attention`), so that no launch of its own does.

    Args:
      u: [B, C] with C at least Q, bfloat16 or float32: what `kernels_pallas.input_product` gave. Taken whole: a slice
        would be a copy.
      matrix: [N, Q] in u's dtype, a row for each factor.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      float32 [S, B, N]; `reference` makes one part.

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    if u.ndim != 2 or 0 in u.shape or u.dtype not in DTYPES:
        raise ValueError(f"u must be [B, C] in bfloat16 or float32, not {u.dtype}{list(u.shape)}")
    if matrix.ndim != 2 or 0 in matrix.shape or matrix.shape[1] > u.shape[1] or matrix.dtype != u.dtype:
        raise ValueError(f"matrix must be {u.dtype} [N, up to {u.shape[1]}], not {matrix.dtype}{list(matrix.shape)}")
    target = target or Target.of(jax.devices()[0])
    chosen = choose("tau_product", backend, target, triton.refusals(u, matrix), (matrix,))
    if chosen == "reference":
        return reference.tau_product(u, matrix)
    return triton.tau_product(u, matrix, interpret=chosen == "interpret")
