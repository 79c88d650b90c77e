"""Both ways to resize: the same passes, and how far they are from each other."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from jaxphoton.image import resize as module
from jaxphoton.image import ways
from jaxphoton.image.resize import resize
from jaxphoton.image.ways import check_resize, default_resize, fast_fault
from tests.image.files import photo

SIDES = st.integers(1, 160)


def drawn(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8))


def pillow(picture: Image.Image, height: int, width: int) -> np.ndarray:
    for size in ((width, picture.height), (width, height)):
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture)


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    assert one.shape == other.shape and one.dtype == other.dtype == np.uint8
    return np.abs(one.astype(int) - other)


@given(SIDES, SIDES, SIDES, SIDES)
@example(1, 1, 1, 1)
@example(7, 9, 7, 30)
@example(7, 9, 30, 9)
def test_exact_is_two_passes_of_pillow(height, width, new_height, new_width):
    picture = drawn(height, width)
    expected = pillow(picture, new_height, new_width)
    np.testing.assert_array_equal(resize(picture, new_height, new_width), expected)


@given(SIDES, SIDES, SIDES, SIDES)
@example(1, 1, 1, 1)
@example(7, 9, 7, 9)
@example(7, 9, 7, 30)
@example(7, 9, 30, 9)
def test_fast_is_at_most_2_levels_away(height, width, new_height, new_width):
    picture = drawn(height, width)
    before = picture.tobytes()
    fast = resize(picture, new_height, new_width, "fast")
    assert apart(fast, pillow(picture, new_height, new_width)).max() <= 2
    assert picture.tobytes() == before


@pytest.mark.parametrize(
    "shape, new",
    [((480, 640), (644, 1176)), ((480, 640), (378, 378)), ((900, 1200), (910, 1176)), ((2000, 1500), (98, 98))],
)
def test_of_a_photo_few_values_differ(shape, new):
    height, width = shape
    picture = Image.fromarray(photo(height, width))
    far = apart(resize(picture, new[0], new[1], "fast"), resize(picture, new[0], new[1]))
    assert far.max() <= 2 and (far > 0).mean() < 0.013 and far.mean() < 0.012


@pytest.mark.parametrize("extensions", ["none", "sse4_1"])
def test_fast_gives_the_same_pixels_with_older_instructions(extensions, monkeypatch):
    cykooz = pytest.importorskip("cykooz_resizer")
    usual = cykooz.Resizer().cpu_extensions
    if usual != cykooz.CpuExtensions.avx2:
        pytest.skip(f"this processor's are {usual.name}")
    picture = drawn(300, 400)
    sizes = [(644, 1176), (98, 98), (300, 77), (77, 400)]
    expected = [resize(picture, *size, "fast") for size in sizes]

    class Older(cykooz.Resizer):
        def __init__(self):
            super().__init__()
            self.cpu_extensions = cykooz.CpuExtensions[extensions]
            made.append(self)

    made = []
    monkeypatch.setattr(cykooz, "Resizer", Older)
    for size, one in zip(sizes, expected, strict=True):
        np.testing.assert_array_equal(resize(picture, *size, "fast"), one)
    assert len(made) == len(sizes)


@pytest.mark.parametrize("how", ["exact", "fast"])
def test_a_picture_one_pixel_wide_is_made_lower_before_it_is_made_wide(how, monkeypatch):
    picture = drawn(400, 1)
    lower = picture.resize((1, 30), Image.Resampling.LANCZOS).resize((20, 30), Image.Resampling.LANCZOS)
    monkeypatch.setattr(module, "_MAX_BETWEEN", 20 * 400 - 1)
    assert apart(resize(picture, 30, 20, how), np.asarray(lower)).max() <= (0 if how == "exact" else 2)


@pytest.fixture
def without_resizer(monkeypatch):
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    for cached in (fast_fault, ways._told_fault):
        cached.cache_clear()
    yield
    for cached in (fast_fault, ways._told_fault):
        cached.cache_clear()


def test_without_the_resizer_fast_is_refused_and_the_default_is_exact_and_says_so(without_resizer, caplog):
    with pytest.raises(ValueError, match="resize 'fast' needs the package cykooz-resizer .*; 'exact' is always there"):
        check_resize("fast")
    with pytest.raises(ValueError, match="cykooz-resizer"):
        resize(drawn(3, 4), 5, 6, "fast")
    assert resize(drawn(3, 4), 5, 6).shape == (5, 6, 3)
    with caplog.at_level(logging.WARNING):
        assert default_resize() == default_resize() == "exact"
    (record,) = caplog.records
    assert "pictures are resized exactly" in record.getMessage()


def test_a_pillow_that_was_not_tried_is_not_read(monkeypatch):
    fast_fault.cache_clear()
    monkeypatch.setattr("PIL.__version__", "99.0.0")
    try:
        with pytest.raises(ValueError, match="was not tried with Pillow 99.0.0"):
            check_resize("fast")
    finally:
        fast_fault.cache_clear()


@pytest.mark.parametrize("how", ["quick", None, 3])
def test_other_ways_are_refused(how):
    with pytest.raises(ValueError, match="resize must be one of exact, fast, not"):
        check_resize(how)
