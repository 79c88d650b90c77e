"""A decode step whose attention is one kernel, from a layer's product: as with rotation and write by themselves."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.engine.state import PagedCache, joined_attend, paged_attend
from jaxphoton.models.joycaption.device import JoyCaptionNetwork
from jaxphoton.models.protocol import CacheSpec, Kernels
from tests.models.joycaption.drawn import SMALL, drawn

PAGE, ROWS = 4, 3
TEXT = SMALL.text


def test_joined_attention_changes_nothing():
    random, kernels = np.random.default_rng(1), Kernels("reference")
    network, params = JoyCaptionNetwork(SMALL), drawn(SMALL)
    spec = CacheSpec(TEXT.num_hidden_layers, TEXT.num_key_value_heads, TEXT.head_dim)
    empty = PagedCache.zeros(spec, 1 + 2 * ROWS, PAGE, "float32")
    cache = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), empty)
    tables = jnp.arange(1, 1 + 2 * ROWS, dtype=jnp.int32).reshape(ROWS, 2)
    positions, valid = jnp.asarray([[0], [5], [3]], jnp.int32), jnp.asarray([[True], [True], [False]])
    places = (PAGE, tables, positions, valid, jnp.zeros(ROWS, jnp.int32))
    x = jnp.asarray(random.normal(size=(ROWS, 1, TEXT.hidden_size)), jnp.float32)
    attend = paged_attend(kernels, *places)

    @jax.jit
    def both(params, x, cache):
        joined = joined_attend(kernels, TEXT.num_attention_heads, *places)
        apart = network.forward(params, x, positions, attend, cache, kernels)
        return apart, network.forward(params, x, positions, attend, cache, kernels, attend_joined=joined)

    # Each form of a layer is in the program once.
    functions = re.findall(r"func private @block", both.lower(params, x, cache).as_text())
    assert len(functions) == 2 < 2 * TEXT.num_hidden_layers
    (apart, one), (together, other) = both(params, x, cache)
    np.testing.assert_allclose(apart[:2], together[:2], atol=1e-5)
    # Page 0 is nobody's, and nobody reads what a row that has ended gives.
    np.testing.assert_allclose(one.k[:, 1:5], other.k[:, 1:5], atol=1e-6)
    np.testing.assert_allclose(one.v[:, 1:5], other.v[:, 1:5], atol=1e-6)
