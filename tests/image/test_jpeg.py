"""Large JPEGs decoded at a reduced size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from jaxphoton.image.prepare import prepare
from jaxphoton.models.registry import named_family

PICTURES = named_family("moondream2").pictures


def jpeg(width: int, height: int, orientation: int = 1, mode: str = "RGB") -> bytes:
    small = np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    picture.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_large_jpeg_has_nearly_the_same_crops(orientation, mode):
    data = jpeg(2600, 1900, orientation, mode)
    exact, fast = prepare(data, PICTURES), prepare(data, PICTURES, fast=True)
    assert fast.size == exact.size and fast.crops.tiling == exact.crops.tiling and fast.notes == exact.notes
    difference = np.abs(fast.crops.pixels.astype(np.int16) - exact.crops.pixels)
    assert 0 < difference.mean() < 1.0
    assert fast.digest != exact.digest


@pytest.mark.parametrize("data", [jpeg(640, 480), jpeg(1000, 90)])
def test_what_is_not_larger_than_needed_is_untouched(data):
    assert prepare(data, PICTURES, fast=True).digest == prepare(data, PICTURES).digest
