"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax

from kernels_pallas.dispatch import Index, Target, choose, outside
from kernels_pallas.input_product import reference, triton
from kernels_pallas.products import DTYPES, check_scale, refusals


def input_product(
    x: jax.Array,
    matrix: jax.Array,
    bias: jax.Array,
    *,
    layer: Index,
    gelu_from: int | None = None,
    scale: jax.Array | None = None,
    backend: str | None = None,
    target: Target | None = None,
) -> jax.Array:
    """x times a matrix, plus its bias, and gelu of some of that, for few rows.

    Sums are float32 and rounded once, to x's dtype. gelu is the one with tanh, of what was rounded, computed in float32
    and rounded again. Here it is computed once a number; before the next product every program would do it anew.

    Args:
      x: [B, K], bfloat16 or float32.
      matrix: [N, K] in x's dtype, or in float8_e4m3fn or int8.
      bias: [L, N] in x's dtype, of which `layer` is taken. Taken whole: a slice would be a copy.
      layer: which of L.
      gelu_from: the first of the columns of the result that go through gelu; None for none of them.
      scale: float32 [N], for 8-bit matrices alone: value = stored * scale of the row.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      [B, N] in x's dtype.

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    _check(x, matrix, bias, layer)
    check_scale(x, matrix, scale)
    gelu_from = matrix.shape[0] if gelu_from is None else gelu_from
    if not 0 <= gelu_from <= matrix.shape[0]:
        raise ValueError(f"gelu_from {gelu_from} is not one of {matrix.shape[0]} columns")
    target = target or Target.of(jax.devices()[0])
    chosen = choose("input_product", backend, target, refusals(x, matrix), (matrix,))
    if chosen == "reference":
        return reference.input_product(x, matrix, bias, scale, layer=layer, gelu_from=gelu_from)
    options = {"cores": target.cores, "interpret": chosen == "interpret"}
    return triton.input_product(x, matrix, bias, scale, layer=layer, gelu_from=gelu_from, **options)


def _check(x, matrix, bias, layer) -> None:
    if x.ndim != 2 or 0 in x.shape or x.dtype not in DTYPES:
        raise ValueError(f"x must be [B, K] in bfloat16 or float32, not {x.dtype}{list(x.shape)}")
    if matrix.ndim != 2 or matrix.shape[1] != x.shape[1]:
        raise ValueError(f"matrix must be [N, {x.shape[1]}], not {matrix.dtype}{list(matrix.shape)}")
    if bias.ndim != 2 or bias.shape[1] != matrix.shape[0] or bias.dtype != x.dtype:
        raise ValueError(f"bias must be {x.dtype} [L, {matrix.shape[0]}], not {bias.dtype}{list(bias.shape)}")
    if outside(layer, bias.shape[0]):
        raise ValueError(f"layer {layer} of {bias.shape[0]}")
