"""What a family says its layers need is what XLA takes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxphoton.layers import moe
from jaxphoton.layers.weight import Dense
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.reading import named_config

FULL = named_config("moondream3")


@pytest.mark.parametrize("tokens", [128, 730, 2920])
def test_experts_on_a_cpu_take_what_is_set_aside_for_them(tokens):
    text, kind = FULL.text, FULL.text.moe
    count, width, inner = kind.num_experts, text.dim, kind.expert_inner_dim
    without = MoondreamFamily(dataclasses.replace(FULL, text=dataclasses.replace(text, moe=None)))
    estimate = MoondreamFamily(FULL).layer_scratch(tokens, 4) - without.layer_scratch(tokens, 4)

    def array(*shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    shapes = (count, width), (count, 2 * inner, width), (count, width, inner)
    router, fc1, fc2 = (Dense(array(*shape)) for shape in shapes)
    params = moe.ExpertParams(router, fc1, fc2)
    chosen = tokens, kind.experts_per_token
    lowered = jax.jit(moe.mix).lower(params, array(tokens, width), array(*chosen, dtype=jnp.int32), array(*chosen))
    taken = lowered.compile().memory_analysis().temp_size_in_bytes
    assert 0.9 < estimate / taken < 1.2
