"""Frames are the recorded ones, and pictures of every shape have as many as is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxphoton.image.crops import told, told_again
from jaxphoton.image.resize import resize
from jaxphoton.models.smolvlm import pictures
from jaxphoton.models.smolvlm.pictures import SmolVLMPictures, frame_count

TINY = SmolVLMPictures(62, 186)
PUBLISHED = {"2.2b": SmolVLMPictures(384, 1536), "500m": SmolVLMPictures(512, 2048)}


def drawn(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(scope="module")
def cases(folder):
    return json.loads((folder / "cases.json").read_text())


@pytest.mark.parametrize("image", range(3))
def test_frames_are_those_of_the_reference(recorded, photos, image):
    crops = TINY.prepare(Image.fromarray(photos[image]))
    away = np.abs(crops.pixels - recorded[f"image{image}.frames"].astype(int))
    # Pillow 13, which made the recorded ones, takes the passes of the last, a high one, in the other order: thrice.
    assert crops.pixels.shape == recorded[f"image{image}.frames"].shape
    assert (away.max(), away.mean()) <= ((6, 0.31) if image == 2 else (0, 0))


@pytest.mark.parametrize("image", range(3))
def test_with_the_resize_of_pillow_13_they_are_the_same_to_the_last_bit(recorded, photos, image, monkeypatch):
    if Image.__version__.partition(".")[0] != "13":
        pytest.skip(f"NOT compared: the order of passes is that of Pillow 13, here is {Image.__version__}")

    def whole(picture, height, width, how):
        return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))

    monkeypatch.setattr(pictures, "resized", whole)
    crops = TINY.prepare(Image.fromarray(photos[image]))
    np.testing.assert_array_equal(crops.pixels, recorded[f"image{image}.frames"])


def test_a_picture_that_is_not_cut_is_one_frame(recorded, photos):
    crops = SmolVLMPictures(62, 186, splitting=False).prepare(Image.fromarray(photos[0]))
    np.testing.assert_array_equal(crops.pixels, recorded["image0_nosplit.frames"])
    assert crops.tiling == (0, 0)


def test_geometry_is_that_of_the_reference(cases):
    for name, found in cases["cases"]["frames"]["geometry"].items():
        size = found["height"], found["width"]
        tiling = found["rows"], found["cols"]
        assert (TINY.needed_size(*size), TINY.tiling(*size)) == (tuple(found["after_first_resize"]), tiling), name
        assert tuple(62 * tiles for tiles in tiling) == tuple(found["after_second_resize"])
        assert TINY.count(*size) == found["frames"]


@pytest.mark.parametrize(
    ("model", "name"), [("2.2b", "edge 1536, tile 384 (2.2B)"), ("500m", "edge 2048, tile 512 (500M, 256M)")]
)
def test_tilings_of_the_published_models(cases, model, name):
    for height, width, *tiling in cases["real_config_tiling"][name]:
        assert list(PUBLISHED[model].tiling(height, width)) == tiling, (height, width)


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile=st.integers(1, 20),
    tiles=st.integers(1, 6),
    less=st.integers(0, 19),
    splitting=st.booleans(),
)
def test_pictures_of_every_shape_have_the_frames_that_are_said(height, width, tile, tiles, less, splitting):
    made = SmolVLMPictures(tile, max(1, tile * tiles - less % tile), splitting)
    crops = made.prepare(drawn(height, width))
    assert crops.tiling == made.tiling(height, width)
    assert len(crops.pixels) == made.count(height, width) == frame_count(crops.tiling)
    assert crops.pixels.shape[1:] == (tile, tile, 3)


def test_tiles_are_the_picture_in_rows_and_the_last_frame_is_all_of_it():
    picture, made = drawn(40, 60), SmolVLMPictures(20, 60)
    crops = made.prepare(picture)
    assert crops.tiling == (2, 3)
    pixels = np.asarray(picture)
    for number in range(6):
        top, left = number // 3 * 20, number % 3 * 20
        np.testing.assert_array_equal(crops.pixels[number], pixels[top : top + 20, left : left + 20])
    np.testing.assert_array_equal(crops.pixels[6], resize(picture, 20, 20))


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 40000)])
def test_extreme_shapes_have_tiles(size):
    crops = PUBLISHED["2.2b"].prepare(Image.new("RGB", size[::-1], (255, 0, 0)))
    rows, columns = crops.tiling
    assert max(rows, columns) == 4 and len(crops.pixels) == rows * columns + 1
    np.testing.assert_array_equal(crops.pixels, np.broadcast_to(np.array([255, 0, 0], np.uint8), crops.pixels.shape))


def test_a_smaller_copy_is_cut_as_the_whole():
    made = SmolVLMPictures(20, 60)
    whole = drawn(121, 320)
    crops = made.prepare(whole.reduce(2), (121, 320))
    assert crops.tiling == made.tiling(121, 320)
    assert crops.pixels.shape == made.prepare(whole).pixels.shape


def test_the_fast_resize_is_near(recorded, photos):
    exact, fast = (TINY.prepare(Image.fromarray(photos[0]), resize=how).pixels.astype(int) for how in ("exact", "fast"))
    away = np.abs(exact - fast)
    assert 0 < away.max() <= 3 and away.mean() < 0.05


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="mode RGB, got L of 4 x 5"):
        TINY.prepare(Image.new("L", (4, 5)))


def test_another_process_makes_the_same():
    for made in (TINY, SmolVLMPictures(62, 186, splitting=False)):
        assert told_again(told(made)) == made
