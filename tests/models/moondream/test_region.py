"""Region heads as layers of their own: two layers or one, with a LayerNorm before them or without."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.layers import spec
from jaxphoton.layers.norms import LN_EPSILON
from jaxphoton.models.moondream import region
from jaxphoton.models.moondream.params import _region
from tests.models.moondream.conftest import REGION

LINEAR = dataclasses.replace(REGION, decoder_arch="linear")


def drawn(config, seed: int = 0):
    leaves, tree = jax.tree.flatten(spec.abstract(_region(config, spec.Specs(jnp.float32))))
    random = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [jnp.asarray(random.normal(0, 0.3, leaf.shape), leaf.dtype) for leaf in leaves])


@pytest.fixture
def hidden() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (3, REGION.dim), jnp.float32) * 4 + 1


def expected(params, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weight = np.concatenate([params.coord_w.matrix, params.size_w.matrix])
    both = h @ weight.T + np.asarray(params.head_b)
    return both[:, : REGION.coord_out_dim], both[:, REGION.coord_out_dim :].reshape(-1, 2, REGION.coord_out_dim)


def test_linear_heads_without_a_layer_norm_read_the_hidden_state_itself(hidden):
    params = drawn(LINEAR)
    assert params.ln is None and params.fc1_w is None
    for got, wanted in zip(region.decode(params, LINEAR, hidden), expected(params, np.asarray(hidden)), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("arch", ["linear", "mlp"])
def test_a_layer_norm_of_the_checkpoint_comes_first(hidden, arch):
    config = dataclasses.replace(REGION, decoder_arch=arch, use_ln=True)
    params = drawn(config)
    h = np.asarray(hidden)
    normed = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + LN_EPSILON)
    normed = jnp.asarray(normed * np.asarray(params.ln[0]) + np.asarray(params.ln[1]), jnp.float32)
    without = region.decode(dataclasses.replace(params, ln=None), config, normed)
    for got, wanted in zip(region.decode(params, config, hidden), without, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)
