"""Where the features of patches and the embeddings of frames go."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.models.siglip import network as siglip
from jaxphoton.models.smolvlm.vision import gather, space_to_depth
from tests.models.smolvlm.drawn import SMALL, drawn


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_square_of_patches_becomes_one_row_by_row(scale):
    features = np.random.default_rng(0).normal(size=(2, 36, 5)).astype(np.float32)
    got, side = np.asarray(space_to_depth(jnp.asarray(features), scale)), 6 // scale
    for frame in range(2):
        for row in range(side):
            for column in range(side):
                square = [
                    features[frame, 6 * (scale * row + a) + scale * column + b]
                    for a in range(scale)
                    for b in range(scale)
                ]
                np.testing.assert_array_equal(got[frame, side * row + column], np.concatenate(square))


def test_a_picture_has_the_embeddings_of_its_frames_in_their_order():
    embeddings = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    got = np.asarray(gather(jnp.asarray(embeddings), jnp.asarray([[4, 1, 0], [3, 2, 2]], jnp.int32)))
    np.testing.assert_array_equal(got[0], embeddings[[4, 1, 0]].reshape(6, 3))
    np.testing.assert_array_equal(got[1], embeddings[[3, 2, 2]].reshape(6, 3))


@pytest.mark.slow
def test_frames_one_by_one_are_those_of_all_at_once_and_none_is_computed_behind_the_last():
    tower = drawn(SMALL).vision.tower
    pixels = jnp.asarray(np.random.default_rng(1).integers(0, 256, (4, 14, 14, 3), np.uint8))
    together = jax.jit(lambda pixels: siglip.encode(tower, SMALL.vision, pixels))(pixels)
    in_turn = jax.jit(lambda pixels, count: siglip.encode_in_turn(tower, SMALL.vision, pixels, count))
    for count in (1, 3, 4):
        got = np.asarray(in_turn(pixels, jnp.int32(count)))
        np.testing.assert_allclose(got[:count], together[:count], atol=1e-5)
        assert not got[count:].any()
