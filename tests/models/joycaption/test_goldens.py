"""Against outputs of the reference library: pictures, vision encoder, projector, and the text decoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxphoton.layers.attention import attend
from jaxphoton.layers.rope import rotary_tables
from jaxphoton.layers.vision_block import normalise, patchify
from jaxphoton.models.joycaption import vision
from jaxphoton.models.joycaption.pictures import JoyCaptionPictures
from jaxphoton.models.llama import network
from jaxphoton.models.protocol import IMAGE
from jaxphoton.models.siglip import network as siglip

TOLERANCE = 1e-4
LENGTH = 136  # of all prompts and what follows them: one compilation


@pytest.fixture(scope="module")
def resized(recorded):
    return jnp.asarray(np.stack([recorded[f"image{i}.resized"] for i in range(3)]))


@pytest.fixture(scope="module")
def features(params, config, resized):
    return jax.jit(lambda pixels: siglip.encode(params.vision.tower, config.vision, pixels))(resized)


@pytest.fixture(scope="module")
def embeddings(params, features):
    return jax.jit(lambda features: vision.project(params.vision, features))(features)


@pytest.fixture(scope="module")
def run(params, config):
    """ids, and the embeddings of their image or None -> (input and output of every block, final norm, logits)."""

    def attend_causally(layer, q, k, v, cache):
        mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))[None]
        return attend(q, k, v, mask), cache

    @jax.jit
    def compiled(ids, images):
        x = network.embed(params.text, ids, images)
        positions, trace = jnp.arange(LENGTH, dtype=jnp.int32)[None], [x]
        hidden, _ = network.forward(params.text, config.text, x, positions, attend_causally, None, trace)
        normed = network.final_norm(params.text, config.text, hidden)
        return jnp.concatenate(trace), normed[0], network.logits(params.text, config.text, hidden)[0]

    def padded(ids: np.ndarray, image: jax.Array | None = None):
        row = np.zeros((1, LENGTH), np.int32)
        row[0, : len(ids)] = np.where(ids == config.image_token_index, IMAGE, ids)
        images = jnp.zeros((1, 16, 64)) if image is None else image[None]
        return tuple(np.asarray(part)[..., : len(ids), :] for part in compiled(row, images))

    return padded


@pytest.mark.parametrize("image", range(3))
def test_a_picture_is_squashed_as_its_author_does_it(recorded, photos, image):
    crops = JoyCaptionPictures(60).prepare(Image.fromarray(photos[image]))
    away = np.abs(crops.pixels[0] - recorded[f"image{image}.resized"].astype(int))
    # Pillow 13, which made the recorded ones, takes the passes of the last, a high one, in the other order.
    assert crops.pixels.shape == (1, 60, 60, 3) and np.max(away) <= (image == 2)


def test_patches(params, config, recorded, resized):
    pixels = np.asarray(normalise(resized[1:2]))[0, :8, :8].transpose(2, 0, 1)
    np.testing.assert_allclose(pixels, recorded["image1.normalized_corner"], atol=TOLERANCE)
    rows = patchify(normalise(resized[1:2]), config.vision.patch_size)[0]
    np.testing.assert_allclose(rows[:2], recorded["image1.patches"], atol=TOLERANCE)
    embedded = siglip.patches(params.vision.tower, config.vision, resized[1:2])[0]
    np.testing.assert_allclose(embedded, recorded["image1.patch_embeds"], atol=TOLERANCE)


def test_features_are_those_of_the_last_layer_but_one(recorded, features):
    np.testing.assert_allclose(features[1], recorded["image1.feature"], atol=TOLERANCE)
    np.testing.assert_allclose(features[1], recorded["image1.vision_hidden"][-2], atol=TOLERANCE)


def test_image_embeddings(recorded, embeddings):
    for i in range(3):
        np.testing.assert_allclose(embeddings[i], recorded[f"image{i}.projected"], atol=TOLERANCE)


def test_rotary_tables(config, recorded):
    positions = jnp.asarray(recorded["rope.positions"])[None]
    cos, sin = rotary_tables(positions, network.frequencies(config.text))
    np.testing.assert_allclose(cos[0, :, 0], recorded["rope.cos"], atol=TOLERANCE)
    np.testing.assert_allclose(sin[0, :, 0], recorded["rope.sin"], atol=TOLERANCE)


def test_a_prompt_with_an_image_in_the_middle(run, recorded, embeddings):
    blocks, normed, logits = run(recorded["prefill.prompt"], embeddings[1])
    np.testing.assert_allclose(blocks, recorded["prefill.layer_hidden"], atol=TOLERANCE)
    np.testing.assert_allclose(normed[-1], recorded["prefill.final_normed_last"], atol=TOLERANCE)
    np.testing.assert_allclose(logits[-8:], recorded["prefill.logits"], atol=TOLERANCE)


def test_a_prompt_of_text_alone(run, recorded):
    blocks, _, logits = run(recorded["text_only.prompt"])
    np.testing.assert_allclose(blocks, recorded["text_only.layer_hidden"], atol=TOLERANCE)
    np.testing.assert_allclose(logits[-1], recorded["text_only.logits"], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("case", "prompt", "image"),
    [
        ("decode", "prefill", 1),
        ("text_only", "text_only", None),
        ("two_turn", "two_turn", 2),
        ("no_system", "no_system", 0),
        ("stop", "stop", 2),
    ],
)
def test_greedy_tokens(run, config, recorded, embeddings, case, prompt, image):
    """All at once, the tokens fed as they were recorded: every row chooses the next of them."""
    front, tokens = recorded[f"{prompt}.prompt"], recorded[f"{case}.tokens"]
    _, _, logits = run(np.concatenate([front, tokens]), None if image is None else embeddings[image])
    rows = logits[len(front) - 1 :]
    np.testing.assert_array_equal(np.argmax(rows[:-1], axis=-1), tokens)
    wanted = np.atleast_2d(recorded[f"{case}.logits"])
    np.testing.assert_allclose(rows[: len(wanted)], wanted, atol=TOLERANCE)
    if case == "stop":
        assert np.argmax(rows[-1]) in config.eos_token_id
