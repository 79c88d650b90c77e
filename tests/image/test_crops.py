"""Tilings and crops, against the recorded ones and for any size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from jaxphoton.config import VisionConfig, load_config
from jaxphoton.image.crops import cut_crops, select_tiling

REAL = VisionConfig()
SMALL = VisionConfig(enc_dim=48, enc_n_heads=4, crop_size=98, max_crops=6, overlap_margin=1)
SIDES = st.one_of(st.integers(1, 600), st.integers(1, 20_000))


@pytest.mark.parametrize("model", ["md2-tiny", "md3-tiny"])
def test_recorded_crops(goldens, model):
    config = load_config(goldens / model / "config.json").vision
    images = load_file(goldens / "images.safetensors")
    cases = json.loads((goldens / model / "cases.json").read_text(encoding="utf-8"))["cases"]
    for name in ("image0", "image1", "image2"):
        crops = cut_crops(images[f"{name}.pixels"], config)
        assert list(crops.tiling) == cases[name]["tiling"]
        np.testing.assert_array_equal(crops.pixels, images[f"{name}.crops"])


def test_recorded_tilings(goldens):
    table = json.loads((goldens / "md2-tiny" / "cases.json").read_text(encoding="utf-8"))["real_config_tiling"]
    assert len(table["rows"]) > 30
    for height, width, *tiling in table["rows"]:
        assert list(select_tiling(height, width, REAL)) == tiling, (height, width)


def test_known_tilings():
    sizes = {(378, 378): (1, 1), (379, 379): (3, 3), (1080, 1920): (2, 4), (480, 640): (2, 4), (585, 2413): (1, 7)}
    assert {size: select_tiling(*size, REAL) for size in sizes} == sizes


@given(height=SIDES, width=SIDES, most=st.integers(1, 20))
@example(height=1, width=1, most=1)
@example(height=20_000, width=379, most=12)
def test_tile_counts_stay_within_the_limit(height, width, most):
    rows, columns = select_tiling(height, width, VisionConfig(max_crops=most))
    assert rows >= 1 and columns >= 1
    assert rows * columns <= most
    if height <= 378 or width <= 378:
        assert (rows, columns) == (1, 1)


def test_very_long_pictures_stay_within_the_limit():
    assert select_tiling(20_000, 379, REAL) == (12, 1)
    assert select_tiling(379, 20_000, REAL) == (1, 12)


@given(height=st.integers(1, 300), width=st.integers(1, 300))
@example(height=1, width=300)
@example(height=300, width=1)
def test_crops_are_whole_and_overlap(height, width):
    picture = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)
    crops = cut_crops(picture, SMALL)
    rows, columns = crops.tiling
    assert crops.tiling == select_tiling(height, width, SMALL)
    assert crops.pixels.shape == (1 + rows * columns, 98, 98, 3) and crops.pixels.dtype == np.uint8
    tiles = crops.pixels[1:].reshape(rows, columns, 98, 98, 3)
    margins = 2 * 14
    np.testing.assert_array_equal(tiles[:, :-1, :, -margins:], tiles[:, 1:, :, :margins])
    np.testing.assert_array_equal(tiles[:-1, :, -margins:], tiles[1:, :, :margins])


def test_the_global_crop_shows_the_whole_picture():
    picture = np.random.default_rng(0).integers(0, 256, (200, 120, 3), np.uint8)
    expected = Image.fromarray(picture).resize((98, 98), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(cut_crops(picture, SMALL).pixels[0], np.asarray(expected))


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(picture):
    with pytest.raises(ValueError, match=r"expected uint8 pixels \[height, width, 3\]"):
        cut_crops(picture, SMALL)
