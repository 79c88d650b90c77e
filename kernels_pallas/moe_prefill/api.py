"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax

from kernels_pallas.dispatch import Target, choose
from kernels_pallas.expert_pairs import pairs_of
from kernels_pallas.experts import Beside, check, refusals
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
    slots: jax.Array | None = None,
    up_a: jax.Array | None = None,
    up_b: jax.Array | None = None,
    down_a: jax.Array | None = None,
    down_b: jax.Array | None = None,
    layer: int = 0,
    backend: str | None = None,
    target: Target | None = None,
) -> jax.Array:
    """`kernels_pallas.moe_decode` for many tokens: the same arguments, result and errors, other kernels."""
    pairs = {"slots": slots, "up_a": up_a, "up_b": up_b, "down_a": down_a, "down_b": down_b}
    check(x, up, down, experts, weights, up_scale, down_scale, pairs, layer)
    chosen = choose("moe_prefill", backend, target, refusals(up, down, up_scale, down_scale), (up, down))
    beside = Beside(up_scale, down_scale, pairs_of(up_a, up_b, layer), pairs_of(down_a, down_b, layer), slots)
    if chosen == "reference":
        return reference.moe_prefill(x, up, down, experts, weights, beside)
    word = triton.word_of((target or Target.of(jax.devices()[0])).capability)
    return triton.moe_prefill(x, up, down, experts, weights, beside, word=word, interpret=chosen == "interpret")
