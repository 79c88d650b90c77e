"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.dispatch import Index, Target, choose, outside
from kernels_pallas.products import DTYPES
from kernels_pallas.residual_norm import reference, triton


def residual_norm(
    x: jax.Array,
    parts: jax.Array,
    bias: jax.Array,
    norm: jax.Array | None = None,
    *,
    layer: Index,
    norm_layer: Index = 0,
    epsilon: float = 1e-5,
    backend: str | None = None,
    target: Target | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """What a layer adds to x, in parts that are not summed yet, and the LayerNorm that the next one begins with.

    x + (sum of parts + bias) is computed in float32 and rounded once, to x's dtype; the norm is that of the rounded x,
    with statistics in float32, and is rounded once too. Parts are added in their order.

    Args:
      x: [B, D], bfloat16 or float32.
      parts: float32 [S, B, D], of `kernels_pallas.output_product`.
      bias: [L, D] or [L, R, D] in x's dtype; all R rows of `layer` are added. Taken whole: a slice would be a copy.
      norm: [M, 2, D], scale and bias, in x's dtype, of which `norm_layer` is taken; None for no norm.
      layer, norm_layer: which of L and of M.
      epsilon: added to the variance.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      (the new x [B, D], its norm [B, D] or None), both in x's dtype.

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    _check(x, parts, bias, norm, layer, norm_layer)
    chosen = choose("residual_norm", backend, target, triton.refusals(x, parts))
    static = {"layer": layer, "norm_layer": norm_layer, "epsilon": epsilon}
    if chosen == "reference":
        return reference.residual_norm(x, parts, bias, norm, **static)
    return triton.residual_norm(x, parts, bias, norm, **static, interpret=chosen == "interpret")


def _check(x, parts, bias, norm, layer, norm_layer) -> None:
    if x.ndim != 2 or 0 in x.shape or x.dtype not in DTYPES:
        raise ValueError(f"x must be [B, D] in bfloat16 or float32, not {x.dtype}{list(x.shape)}")
    rows, width = x.shape
    if parts.ndim != 3 or not parts.shape[0] or parts.shape[1:] != x.shape or parts.dtype != jnp.float32:
        raise ValueError(f"parts must be float32 [S, {rows}, {width}], not {parts.dtype}{list(parts.shape)}")
    if bias.ndim not in (2, 3) or bias.shape[-1] != width or bias.dtype != x.dtype:
        raise ValueError(f"bias must be {x.dtype} [L, {width}] or [L, R, {width}], not {bias.dtype}{list(bias.shape)}")
    if outside(layer, bias.shape[0]):
        raise ValueError(f"layer {layer} of {bias.shape[0]} in bias")
    if norm is None:
        return
    if norm.ndim != 3 or norm.shape[1:] != (2, width) or norm.dtype != x.dtype:
        raise ValueError(f"norm must be {x.dtype} [M, 2, {width}], not {norm.dtype}{list(norm.shape)}")
    if outside(norm_layer, norm.shape[0]):
        raise ValueError(f"layer {norm_layer} of {norm.shape[0]} in norm")
