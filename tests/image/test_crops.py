"""Tilings and crops, against the recorded ones and for any size."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from jaxphoton.image.crops import Crops
from jaxphoton.models.moondream.config import VisionConfig
from jaxphoton.models.moondream.pictures import MoondreamPictures, cut_crops, select_tiling
from jaxphoton.models.moondream.reading import load_config

REAL = VisionConfig()
SMALL = VisionConfig(enc_dim=48, enc_n_heads=4, crop_size=98, max_crops=6, overlap_margin=1)
SIDES = st.one_of(st.integers(1, 600), st.integers(1, 20_000))


@pytest.mark.parametrize("model", ["md2-tiny", "md3-tiny"])
def test_recorded_crops(goldens, model):
    config = load_config(goldens / model / "config.json").vision
    images = load_file(goldens / "images.safetensors")
    cases = json.loads((goldens / model / "cases.json").read_text(encoding="utf-8"))["cases"]
    for name in ("image0", "image1", "image2"):
        crops, recorded = cut_crops(images[f"{name}.pixels"], config), images[f"{name}.crops"]
        assert list(crops.tiling) == cases[name]["tiling"]
        crops = Crops(with_single_tile(crops), crops.tiling)
        if name == "image2":
            # Recorded on Pillow 13, which resized this shape height first.
            np.testing.assert_array_equal(recorded[0], passes(images["image2.pixels"], (118, 98), (98, 98)))
            assert np.abs(crops.pixels[0].astype(int) - recorded[0]).max() == 3
            crops, recorded = Crops(crops.pixels[1:], crops.tiling), recorded[1:]
        np.testing.assert_array_equal(crops.pixels, recorded)


def with_single_tile(crops: Crops) -> np.ndarray:
    """The originals cut a single tile, too, which is the global crop again."""
    return np.concatenate([crops.pixels] * (2 if crops.tiling == (1, 1) else 1))


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
    count = 1 if crops.tiling == (1, 1) else 1 + rows * columns
    assert crops.pixels.shape == (count, 98, 98, 3) and crops.pixels.dtype == np.uint8
    assert count == MoondreamPictures(SMALL).count(height, width)
    tiles = with_single_tile(crops)[1:].reshape(rows, columns, 98, 98, 3)
    margins = 2 * 14
    np.testing.assert_array_equal(tiles[:, :-1, :, -margins:], tiles[:, 1:, :, :margins])
    np.testing.assert_array_equal(tiles[:-1, :, -margins:], tiles[1:, :, :margins])


def passes(picture: np.ndarray, *sizes: tuple[int, int]) -> np.ndarray:
    """Resized to each (width, height) in turn; of each, one side is that of the one before."""
    image = Image.fromarray(picture)
    for size in sizes:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image)


def test_the_global_crop_shows_the_whole_picture():
    picture = np.random.default_rng(0).integers(0, 256, (200, 120, 3), np.uint8)
    np.testing.assert_array_equal(cut_crops(picture, SMALL).pixels[0], passes(picture, (98, 200), (98, 98)))


def noise(height: int, width: int) -> np.ndarray:
    """The same on every release of NumPy, and rich in contrasts that a resize has to clip."""
    y, x, channel = np.indices((height, width, 3), np.uint32)
    mixed = x * np.uint32(2654435761) ^ y * np.uint32(2246822519) ^ channel * np.uint32(3266489917)
    return (((mixed ^ mixed >> np.uint32(15)) * np.uint32(2246822519)) >> np.uint32(24)).astype(np.uint8)


# Made with two explicit passes, width first, on Pillow 11.3, 12.0, 12.3 and 13.0. One resize of both sides gives other
# pixels for those marked, on the releases named.
HASHES = {
    (480, 640): "46f0a752f5f503bb",
    (640, 480): "e46de8a8a49ed4e6",  # 13.0
    (800, 1200): "f9ad7dca4c624eda",  # 13.0
    (1200, 800): "0071559700fd262a",
    (1000, 378): "e2da3ca8b40ccbc4",  # one pass
    (378, 1000): "5edb85b7db1bd7c4",  # one pass
    (378, 378): "aab7549071ea7bd0",  # none
    (1, 1): "e95b30ae46adb975",
    (2000, 3): "1465d0035a1966d0",  # 12.3, 13.0
    (3, 2000): "d1c5d2d88bc2bc49",
    (3000, 400): "ef2a97e3c54561ba",  # 13.0
}


@pytest.mark.parametrize("shape", HASHES)
def test_pixels_do_not_depend_on_the_release_of_pillow(shape):
    crops = cut_crops(noise(*shape), REAL)
    assert hashlib.sha256(with_single_tile(crops).tobytes()).hexdigest()[:16] == HASHES[shape]


def test_a_picture_one_pixel_wide_is_made_lower_before_it_is_made_wide():
    # Width first would hold 378 times as many pixels in between.
    picture = noise(400_000, 1)
    np.testing.assert_array_equal(cut_crops(picture, REAL).pixels[0], passes(picture, (1, 378), (378, 378)))


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


@pytest.mark.parametrize("picture", [Image.new("L", (4, 4)), Image.new("RGBA", (4, 4)), Image.new("RGB", (0, 4))])
def test_other_pictures_are_refused(picture):
    with pytest.raises(ValueError, match="expected a picture of mode RGB, got"):
        cut_crops(picture, SMALL)


def test_a_picture_is_cut_as_its_array():
    pixels = noise(300, 200)
    for how in ("exact", "fast"):
        crops = cut_crops(Image.fromarray(pixels), SMALL, how=how)
        np.testing.assert_array_equal(crops.pixels, cut_crops(pixels, SMALL, how=how).pixels)
