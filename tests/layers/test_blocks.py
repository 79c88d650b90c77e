"""Norms, rotary positions and gated MLPs, each against its formula in float64."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxphoton.layers.mlp import gated_mlp
from jaxphoton.layers.norms import layer_norm, rms_norm
from jaxphoton.layers.rope import llama3_scaled, rotary_frequencies, rotary_tables, rotate
from jaxphoton.layers.weight import Dense


def drawn(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def test_a_layer_norm_takes_the_mean_away_and_an_rms_norm_does_not():
    x, scale, bias = drawn(0, 2, 3, 8) * 2 + 5, drawn(1, 8), drawn(2, 8)
    exact = np.asarray(x, np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    wanted = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5) * np.asarray(scale) + np.asarray(bias)
    np.testing.assert_allclose(layer_norm(x, jnp.stack([scale, bias])), wanted, atol=1e-5)
    wanted = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 0.5) * np.asarray(scale)
    np.testing.assert_allclose(rms_norm(x, scale, 0.5), wanted, atol=1e-5)


def test_an_rms_norm_of_bfloat16_has_its_statistics_in_float32():
    x = jnp.full((1, 4096), 300.0, jnp.bfloat16)  # the sum of squares is beyond what bfloat16 can count
    normed = rms_norm(x, jnp.ones(4096, jnp.bfloat16), 1e-6)
    assert normed.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(normed, np.float32), 1.0)


@pytest.mark.parametrize("turned", [4, 8], ids=["half a head", "the whole head"])
def test_rotary_pairs_are_turned_by_the_angle_of_their_position(turned):
    x, positions = drawn(3, 1, 2, 3, 8), jnp.asarray([[5, 300]], jnp.int32)
    got = np.asarray(rotate(x, *rotary_tables(positions, rotary_frequencies(turned, 100.0))))
    half, exact = turned // 2, np.asarray(x, np.float64)
    for t, i in np.ndindex(2, half):
        angle = float(positions[0, t]) * 100.0 ** (-2 * i / turned)
        pair = exact[0, t, :, i] + 1j * exact[0, t, :, i + half]
        wanted = pair * np.exp(1j * angle)
        np.testing.assert_allclose(got[0, t, :, i] + 1j * got[0, t, :, i + half], wanted, atol=1e-4)
    np.testing.assert_array_equal(got[..., turned:], x[..., turned:])


def test_a_longer_context_slows_the_pairs_that_turned_little_in_the_old_one():
    scaled = llama3_scaled(2 * math.pi / 64 * np.array([9.0, 4.0, 2.5, 1.0, 0.2]), 8.0, 1.0, 4.0, 64)
    wanted = 2 * math.pi / 64 * np.array([9.0, 4.0, 0.5 * 2.5 + 0.5 * 2.5 / 8, 1 / 8, 0.2 / 8])
    np.testing.assert_allclose(scaled, wanted, rtol=1e-12)


@pytest.mark.parametrize(("array", "head_dim", "old_length"), [("rope", 24, 64), ("rope_real", 128, 8192)])
def test_scaled_frequencies_are_those_of_the_reference(goldens, array, head_dim, old_length):
    wanted = load_file(goldens / "joycaption-tiny" / "cases.safetensors")[f"{array}.inv_freq"]
    scaled = llama3_scaled(rotary_frequencies(head_dim, 500_000.0), 8.0, 1.0, 4.0, old_length)
    np.testing.assert_allclose(scaled, wanted, rtol=1e-6)


def test_a_gated_mlp():
    x, gate, up, down = drawn(4, 3, 6), drawn(5, 10, 6), drawn(6, 10, 6), drawn(7, 6, 10)
    x64, gate64, up64, down64 = (np.asarray(part, np.float64) for part in (x, gate, up, down))
    gated = x64 @ gate64.T
    wanted = (gated / (1 + np.exp(-gated)) * (x64 @ up64.T)) @ down64.T
    np.testing.assert_allclose(gated_mlp(x, *map(Dense, (gate, up, down))), wanted, atol=1e-4)
