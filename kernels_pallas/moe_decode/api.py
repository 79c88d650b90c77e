"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.dispatch import Target, choose
from kernels_pallas.moe_decode import reference, triton

DTYPES = (jnp.bfloat16, jnp.float32)
SCALED_DTYPE = jnp.float8_e4m3fn


def moe_decode(
    x: jax.Array,
    up: jax.Array,
    down: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    *,
    up_scale: jax.Array | None = None,
    down_scale: jax.Array | None = None,
    backend: str | None = None,
    target: Target | None = None,
) -> jax.Array:
    """Weighted sum of each token's chosen experts, gated feed-forward layers without biases; for few tokens.

    Token t gives the sum over j of weights[t, j] * (down[e] @ (gelu(u) * (g + 1))), where e = experts[t, j], u is the
    first half of up[e] @ x[t] and g the second, and gelu is the exact one. Dots accumulate in float32. Experts that no
    token chose are not read and may hold anything, NaN too.

    Args:
      x: [T, D] (tokens, model), bfloat16 or float32.
      up: [E, 2 I, D] (experts, twice the inner size, model) in x's dtype or float8_e4m3fn.
      down: [E, D, I] in the dtype of `up`.
      experts: int32 [T, k], numbers in 0..E-1.
      weights: float32 [T, k].
      up_scale, down_scale: float32 [E, 2 I] and [E, D], for float8 matrices alone: value = stored * scale of the row.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      [T, D] in x's dtype.

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    _check(x, up, down, experts, weights, up_scale, down_scale)
    chosen = choose("moe_decode", backend, target, triton.refusals(down, experts), (up, down))
    scales = {"up_scale": up_scale, "down_scale": down_scale}
    if chosen == "reference":
        return reference.moe_decode(x, up, down, experts, weights, **scales)
    return triton.moe_decode(x, up, down, experts, weights, **scales, interpret=chosen == "interpret")


def _check(x, up, down, experts, weights, up_scale, down_scale) -> None:
    if x.ndim != 2 or 0 in x.shape or x.dtype not in DTYPES:
        raise ValueError(f"x must be [T, D] in bfloat16 or float32, not {x.dtype}{list(x.shape)}")
    if up.ndim != 3 or up.shape[1] % 2 or up.shape[2] != x.shape[1]:
        raise ValueError(f"up must be [E, 2 I, {x.shape[1]}], not {list(up.shape)}")
    count, rows, model = up.shape
    if down.shape != (count, model, rows // 2):
        raise ValueError(f"down must be {[count, model, rows // 2]} beside such an up, not {list(down.shape)}")
    if up.dtype != down.dtype or up.dtype not in (x.dtype, SCALED_DTYPE):
        raise ValueError(f"up and down must be {x.dtype} like x, or float8_e4m3fn, not {up.dtype} and {down.dtype}")
    if experts.ndim != 2 or experts.shape[0] != x.shape[0] or not experts.shape[1] or experts.dtype != jnp.int32:
        raise ValueError(f"experts must be int32 [{x.shape[0]}, k], not {experts.dtype}{list(experts.shape)}")
    if weights.shape != experts.shape or weights.dtype != jnp.float32:
        raise ValueError(f"weights must be float32{list(experts.shape)}, not {weights.dtype}{list(weights.shape)}")
    scales = {"up_scale": (up_scale, (count, rows)), "down_scale": (down_scale, (count, model))}
    for name, (scale, shape) in scales.items():
        if up.dtype != SCALED_DTYPE:
            if scale is not None:
                raise ValueError(f"scales go with float8 matrices, these are {up.dtype}")
        elif scale is None or scale.shape != shape or scale.dtype != jnp.float32:
            raise ValueError(f"float8 matrices need {name}, float32{list(shape)}")
