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
    """`kernels_pallas.moe_decode` for many tokens: the same arguments, result and errors, other kernels."""
    check(x, up, down, experts, weights, up_scale, down_scale)
    chosen = choose("moe_prefill", backend, target, triton.refusals(down, experts), (up, down))
    scales = {"up_scale": up_scale, "down_scale": down_scale}
    if chosen == "reference":
        return reference.moe_prefill(x, up, down, experts, weights, **scales)
    return triton.moe_prefill(x, up, down, experts, weights, **scales, interpret=chosen == "interpret")
