"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax

from kernels_pallas.dispatch import Target, choose
from kernels_pallas.expert_pairs import pairs_of
from kernels_pallas.experts import Beside, check, refusals
from kernels_pallas.moe_decode import reference, triton


def moe_decode(
    x: jax.Array,
    up: jax.Array,
    down: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    *,
    up_scale: jax.Array | None = None,
    down_scale: jax.Array | None = None,
    slots: jax.Array | None = None,
    up_a: jax.Array | None = None,
    up_b: jax.Array | None = None,
    down_a: jax.Array | None = None,
    down_b: jax.Array | None = None,
    layer: int = 0,
    backend: str | None = None,
    target: Target | None = None,
) -> jax.Array:
    """Weighted sum of each token's chosen experts, gated feed-forward layers without biases; for few tokens.

    Token t gives the sum over j of weights[t, j] * (down[e] @ (gelu(u) * (g + 1))), where e = experts[t, j], u is the
    first half of up[e] @ x[t] and g the second, and gelu is the exact one. Dots accumulate in float32. Experts that no
    token chose are not read and may hold anything, NaN too. A choice of -1, of an expert that is not here, adds nothing
    and its weight may be anything; a token without any other gets zeros.

    With pairs of low rank in S slots, up_b[layer, e, :, s] @ (up_a[layer, e, s] @ x[t]) with s = slots[t] is added to
    what `up[e]` gives, before gelu, and the same of `down_a` and `down_b` to what `down[e]` gives.

    Args:
      x: [T, D] (tokens, model), bfloat16 or float32.
      up: [E, 2 I, D] (experts, twice the inner size, model) in x's dtype, float8_e4m3fn, int8 or int4.
      down: [E, D, I] in the dtype of `up`.
      experts: int32 [T, k], numbers in 0..E-1, or -1 for a choice that is not here.
      weights: float32 [T, k].
      up_scale, down_scale: for matrices of few bits alone, value = stored * scale: float32 [E, 2 I] and [E, D], of
        rows; or bfloat16 or float32 [E, 2 I, G] and [E, D, G], of G groups of neighbouring columns, the only ones of
        int4.
      slots: int32 [T], -1 for none; it and the following all together or not at all.
      up_a, down_a: [L, E, S, R, D] and [L, E, S, R, I] in x's dtype, finite; L layers, so that no slice is copied.
      up_b, down_b: [L, E, 2 I, S, R] and [L, E, D, S, R] in x's dtype, finite.
      layer: which of the pairs' layers.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      [T, D] in x's dtype.

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    pairs = {"slots": slots, "up_a": up_a, "up_b": up_b, "down_a": down_a, "down_b": down_b}
    check(x, up, down, experts, weights, up_scale, down_scale, pairs, layer)
    reasons = [*refusals(up, down, up_scale, down_scale), *triton.refusals(experts)]
    chosen = choose("moe_decode", backend, target, reasons, (up, down))
    beside = Beside(up_scale, down_scale, pairs_of(up_a, up_b, layer), pairs_of(down_a, down_b, layer), slots)
    if chosen == "reference":
        return reference.moe_decode(x, up, down, experts, weights, beside)
    return triton.moe_decode(x, up, down, experts, weights, beside, interpret=chosen == "interpret")
