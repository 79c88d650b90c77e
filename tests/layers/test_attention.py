"""Attention masks, and attention with grouped heads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.layers.attention import attend, attend_by_head, block_mask, prefix_blocks


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=12))
def test_block_mask_is_causal_plus_blocks(ids):
    blocks = jnp.asarray([ids], jnp.int32)
    positions = jnp.arange(len(ids), dtype=jnp.int32)[None]
    mask = np.asarray(block_mask(positions, positions, blocks, blocks))[0]
    for q, k in np.ndindex(*mask.shape):
        assert mask[q, k] == (k <= q or (ids[q] >= 0 and ids[q] == ids[k]))


@given(st.integers(0, 9))
def test_prefix_blocks_mark_exactly_the_prefix(prefix):
    positions = jnp.arange(9, dtype=jnp.int32)[None]
    blocks = np.asarray(prefix_blocks(positions, jnp.full(1, prefix, jnp.int32)))[0]
    assert (blocks == 0).sum() == prefix
    assert (blocks[prefix:] == -1).all()


def test_grouped_heads_equal_repeated_ones():
    q, k, v = (
        jax.random.normal(jax.random.key(i), shape, jnp.float32)
        for i, shape in enumerate([(2, 3, 6, 8), (2, 5, 2, 8), (2, 5, 2, 8)])
    )
    repeated = attend(q, jnp.repeat(k, 3, axis=2), jnp.repeat(v, 3, axis=2))
    np.testing.assert_allclose(attend(q, k, v), repeated, atol=1e-6)


def test_heads_in_turn_attend_as_all_at_once():
    shapes = [(2, 3, 6, 8), (2, 5, 2, 8), (2, 5, 2, 8)]
    q, k, v = (jax.random.normal(jax.random.key(i), shape, jnp.float32) for i, shape in enumerate(shapes))
    np.testing.assert_allclose(attend_by_head(q, k, v), attend(q, k, v), atol=1e-6)
