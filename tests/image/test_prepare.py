"""One function from any source to crops, digest and size."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image

from jaxphoton.image.crops import Crops
from jaxphoton.image.decode import ImageError, decode
from jaxphoton.image.prepare import digest_of, prepare
from jaxphoton.models.moondream.config import VisionConfig
from jaxphoton.models.moondream.pictures import MoondreamPictures, cut_crops
from tests.image.files import photo, saved

CONFIG = VisionConfig(crop_size=56, overlap_margin=1)
PICTURES = MoondreamPictures(CONFIG)
PHOTO = photo(120, 90)
PICTURE = Image.fromarray(PHOTO)


def test_it_is_decoding_and_cropping(tmp_path):
    data = saved(PICTURE, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    crops = cut_crops(PHOTO, CONFIG)
    prepared = [prepare(source, PICTURES) for source in (data, path, str(path), io.BytesIO(data), PICTURE, PHOTO)]
    for one in prepared:
        np.testing.assert_array_equal(one.crops.pixels, crops.pixels)
        assert one.crops.tiling == crops.tiling
        assert one.size == (120, 90)
        assert one.notes == ()
    assert len({one.digest for one in prepared}) == 1 and len(prepared[0].digest) == 32


def test_the_digest_is_of_the_upright_pixels_and_their_shape():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = prepare(saved(PICTURE, "PNG", exif=exif), PICTURES)
    assert turned.size == (90, 120)
    assert turned.notes == ("rotated by EXIF orientation 6",)
    assert turned.digest == prepare(np.rot90(PHOTO, -1), PICTURES).digest
    assert turned.digest != prepare(PHOTO, PICTURES).digest
    same_bytes = PHOTO.reshape(90, 120, 3)
    assert prepare(same_bytes, PICTURES).digest != prepare(PHOTO, PICTURES).digest
    other = PHOTO.copy()
    other[100:, 80:, 2] ^= 128
    assert prepare(other, PICTURES).digest != prepare(PHOTO, PICTURES).digest


def test_the_digest_is_of_what_the_network_sees():
    assert len({prepare(PHOTO, PICTURES, resize=how).digest for how in ("exact", "fast")}) == 2
    wide, tall = (Crops(np.full((4, 5, 5, 3), 7, np.uint8), tiling) for tiling in ((1, 3), (3, 1)))
    assert digest_of(wide) != digest_of(tall)
    other = Crops(wide.pixels.copy(), wide.tiling)
    assert digest_of(other) == digest_of(wide)
    other.pixels[3, 4, 4, 2] ^= 1
    assert digest_of(other) != digest_of(wide)


def test_the_digest_is_the_same_for_every_process():
    grey = np.full((2, 3, 3), 7, np.uint8)
    seen = struct.pack("<qqqqqq", 1, 1, 1, 56, 56, 3) + bytes([7] * (56 * 56 * 3))
    assert prepare(grey, PICTURES).digest == blake3(seen).digest()


def test_a_picture_in_memory_is_not_changed():
    before = PICTURE.tobytes()
    for how in ("exact", "fast"):
        prepare(PICTURE, PICTURES, resize=how).crops.pixels[:] = 0
    assert PICTURE.tobytes() == before


def test_the_options_are_those_of_decode():
    half_clear = PICTURE.convert("RGBA")
    half_clear.putalpha(128)
    data = saved(half_clear, "PNG")
    blue = prepare(data, PICTURES, background=(0, 0, 255))
    np.testing.assert_array_equal(
        blue.crops.pixels, cut_crops(decode(data, background=(0, 0, 255)).pixels, CONFIG).pixels
    )
    assert blue.notes == ("transparency blended over (0, 0, 255)",)
    with pytest.raises(ImageError) as caught:
        prepare(data, PICTURES, max_pixels=100, name="mine")
    assert (caught.value.source, caught.value.reason) == ("mine", "too-large")
    short = saved(PICTURE, "JPEG")[:-400]
    with pytest.raises(ImageError):
        prepare(short, PICTURES)
    assert prepare(short, PICTURES, allow_truncated=True).notes == ("truncated file",)
    with pytest.raises(TypeError):
        prepare(3, PICTURES)
