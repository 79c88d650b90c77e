"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax

from kernels_pallas.dispatch import Target, choose
from kernels_pallas.experts import check
from kernels_pallas.moe_prefill import reference, triton


def moe_prefill(
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
    """Weighted sum of each token's chosen experts, gated feed-forward layers without biases; for many tokens.

    Token t gives the sum over j of weights[t, j] * (down[e] @ (gelu(u) * (g + 1))), where e = experts[t, j], u is the
    first half of up[e] @ x[t] and g the second, and gelu is the exact one. Dots accumulate in float32. Experts that no
    token chose are not read and may hold anything, NaN too.

    Args:
      x: [T, D] (tokens, model), bfloat16 or float32.
      up: [E, 2 I, D] (experts, twice the inner size, model) in x's dtype, float8_e4m3fn or int8.
      down: [E, D, I] in the dtype of `up`.
      experts: int32 [T, k], numbers in 0..E-1.
      weights: float32 [T, k].
      up_scale, down_scale: float32 [E, 2 I] and [E, D], for 8-bit matrices alone: value = stored * scale of the row.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      [T, D] in x's dtype.

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    check(x, up, down, experts, weights, up_scale, down_scale)
    chosen = choose("moe_prefill", backend, target, triton.refusals(down, experts), (up, down))
    scales = {"up_scale": up_scale, "down_scale": down_scale}
    if chosen == "reference":
        return reference.moe_prefill(x, up, down, experts, weights, **scales)
    return triton.moe_prefill(x, up, down, experts, weights, **scales, interpret=chosen == "interpret")
