"""One vision program for all tilings and any company."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.layers.attention import attend_by_head
from jaxphoton.models.moondream import vision
from jaxphoton.models.moondream.config import TextConfig, VisionConfig
from jaxphoton.models.moondream.pictures import crop_owners, cut_crops
from jaxphoton.models.moondream.pooling import pooling_matrices

CONFIG = VisionConfig(
    enc_dim=24,
    enc_patch_size=4,
    enc_n_layers=2,
    enc_ff_dim=40,
    enc_n_heads=2,
    proj_out_dim=32,
    proj_inner_dim=48,
    crop_size=20,
    max_crops=6,
    overlap_margin=1,
)


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(
        CONFIG, TextConfig(dim=32, ff_dim=8, n_layers=1, vocab_size=9, n_heads=4, n_kv_heads=4, prefix_attn=26)
    ).vision


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def batch(pictures, crops: int) -> dict[str, Any]:
    """The pictures' crops side by side, padded to `crops` with garbage that would show."""
    parts = [cut_crops(p, CONFIG) for p in pictures]
    matrices = [pooling_matrices(part.tiling, CONFIG) for part in parts]
    owner = [crop_owners(len(part.pixels), i) for i, part in enumerate(parts)]
    pixels = np.concatenate([part.pixels for part in parts])
    pad = crops - len(pixels)
    fill = [(0, pad)]
    return {
        "pixels": np.pad(pixels, fill + [(0, 0)] * 3, constant_values=255),
        "rows": np.pad(np.concatenate([m[0] for m in matrices]), fill + [(0, 0)] * 2),
        "columns": np.pad(np.concatenate([m[1] for m in matrices]), fill + [(0, 0)] * 2),
        "owner": np.pad(np.concatenate(owner), fill + [(0, 0)], constant_values=-1),
    }


def test_one_compiled_program_serves_every_tiling_and_mix(params):
    traces = 0

    def counted(params, **crops):
        nonlocal traces
        traces += 1
        return vision.embed_images(params, CONFIG, **crops, images=2)

    run = jax.jit(counted)
    sizes = [(20, 20), (60, 20), (33, 47), (90, 31), (26, 200)]
    alone = jax.jit(partial(vision.embed_images, config=CONFIG, images=1))
    for first in range(len(sizes) - 1):
        pair = [picture(first, *sizes[first]), picture(9, *sizes[first + 1])]
        together = run(params, **batch(pair, crops=14))
        for i, one in enumerate(pair):
            np.testing.assert_allclose(together[i], alone(params, **batch([one], crops=7))[0], atol=2e-5)
    assert traces == 1


def test_crops_in_turn_are_embedded_as_all_at_once(params):
    pair = [picture(1, 33, 47), picture(2, 20, 20)]
    crops = batch(pair, crops=14)
    together = vision.embed_images(params, CONFIG, **crops, images=3)
    in_turn = jax.jit(partial(vision.embed_in_turn, config=CONFIG, images=3))
    np.testing.assert_allclose(in_turn(params, **crops)[:2], together[:2], atol=2e-5)
    # Padding between crops is nobody's either, whatever it holds.
    shifted = {name: np.concatenate([part[9:10], part[:9]]) for name, part in crops.items()}
    np.testing.assert_allclose(in_turn(params, **shifted)[:2], together[:2], atol=2e-5)


@pytest.mark.parametrize("embed", [vision.embed_images, vision.embed_in_turn])
def test_a_single_tile_is_encoded_once_and_stands_for_the_global_crop_too(params, embed):
    """As the originals have it, it is a crop of its own, of the same pixels."""
    crops = batch([picture(1, 20, 20), picture(2, 33, 47), picture(3, 17, 200)], crops=12)
    assert crops["owner"].T.tolist() == [[0, 1, -1, -1, -1, -1, 2, *[-1] * 5], [0, -1, 1, 1, 1, 1, 2, *[-1] * 5]]
    twice = {name: np.concatenate([part[:1], part]) for name, part in crops.items()}
    twice["owner"][:2] = [(0, -1), (-1, 0)]
    run = jax.jit(partial(embed, config=CONFIG, images=3))
    np.testing.assert_allclose(run(params, **crops), run(params, **twice), atol=2e-5)


def test_crops_in_turn_end_with_the_last_that_is_somebodys(params):
    """A padding crop costs nothing: its program runs on, whatever the bucket."""
    visits = []

    def counted(q, k, v):
        jax.debug.callback(lambda: visits.append(1))
        return attend_by_head(q, k, v)

    run = jax.jit(partial(vision.embed_in_turn, config=CONFIG, images=1, attention=counted))
    run(params, **batch([picture(1, 20, 20)], crops=7)).block_until_ready()
    jax.effects_barrier()
    assert len(visits) == CONFIG.enc_n_layers


def test_a_padding_crop_is_selected_out_not_multiplied_by_zero(params):
    crops = batch([picture(1, 20, 20)], crops=4)
    features = vision.encode(params, CONFIG, jnp.asarray(crops["pixels"]))
    poisoned = features.at[1:].set(jnp.nan)
    for matrix in ("rows", "columns", "owner"):
        crops[matrix] = jnp.asarray(crops[matrix])
    combined = [
        vision.combine(CONFIG, f, crops["rows"], crops["columns"], crops["owner"], 1) for f in (features, poisoned)
    ]
    for clean, dirty in zip(*combined, strict=True):
        np.testing.assert_array_equal(clean, dirty)


def test_global_features_pass_through_unchanged(params):
    crops = batch([picture(2, 33, 47)], crops=7)
    features = vision.encode(params, CONFIG, jnp.asarray(crops["pixels"]))
    global_map, _ = vision.combine(CONFIG, features, crops["rows"], crops["columns"], crops["owner"], 1)
    np.testing.assert_array_equal(global_map[0], features[0])
