"""Orientation, transparency, colour and depth: each picture comes out upright in 8-bit RGB, with a note."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxphoton.image.decode import decode
from tests.image.files import chunk, photo, png, png16, saved

PHOTO = photo(48, 64)
PICTURE = Image.fromarray(PHOTO)
RED, WHITE = (255, 0, 0), (255, 255, 255)

# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(PICTURE, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    decoded = decode(data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(decoded.pixels, np.asarray(expected))
    assert decoded.pixels.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))
    assert decoded.notes == (() if orientation == 1 else (f"rotated by EXIF orientation {orientation}",))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_does_not_cost_the_picture(exif):
    for form in ("JPEG", "PNG", "WEBP"):
        assert decode(saved(PICTURE, form, exif=exif)).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_orientations_that_mean_nothing(value):
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode(saved(PICTURE, "PNG", exif=exif)).notes == ()


# Transparency


def half_transparent(mode: str) -> Image.Image:
    """The left half red (in grey modes: dark) and opaque, the right half transparent with black behind."""
    alpha = Image.new("L", (8, 4), 0)
    alpha.paste(255, (0, 0, 4, 4))
    colour = Image.new("RGB", (8, 4), 0)
    colour.paste(RED, (0, 0, 4, 4))
    colour = colour.convert("RGB" if mode == "RGBA" else "L")
    colour.putalpha(alpha)
    return colour


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("background", [WHITE, (0, 128, 255)])
def test_alpha_channels(mode, background):
    image = half_transparent(mode)
    premultiplied = image.convert("La" if mode == "LA" else "RGBa")
    for source in (saved(image, "PNG"), image, premultiplied):
        decoded = decode(source, background=background)
        assert (decoded.pixels[:, 4:] == background).all()
        np.testing.assert_array_equal(decoded.pixels[:, :4], np.asarray(image.convert("RGB"))[:, :4])
        over = "white" if background == WHITE else "(0, 128, 255)"
        assert decoded.notes == (f"transparency blended over {over}",)


def test_half_opaque_pixels_are_mixed():
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert (decode(image).pixels == 127).all()
    assert (decode(np.asarray(image)).pixels == 127).all()


def test_opaque_alpha_needs_no_note():
    assert decode(saved(PICTURE.convert("RGBA"), "PNG")).notes == ()


@pytest.mark.parametrize("entries", [b"\xff\x00\xff", b"\x00\x80", 1])
def test_palettes_with_transparent_entries(entries):
    image = Image.new("P", (6, 2))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 0, 1, 1, 2, 2] * 2)
    decoded = decode(saved(image, "PNG", transparency=entries))
    alphas = [255, 0, 255] if entries in (1, b"\xff\x00\xff") else [0, 128, 255]
    colours = np.array([RED, (0, 255, 0), (0, 0, 255)])
    expected = [(c * a + 255 * (255 - a)) / 255 for c, a in zip(colours, alphas, strict=True)]
    assert np.abs(decoded.pixels[0, ::2] - np.array(expected)).max() <= 1
    assert decoded.notes == ("transparency blended over white",)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_with_one_transparent_value(depth):
    # One row of two pixels: value 1 (the transparent one) and value 0.
    row = {1: b"\x80", 2: b"\x40", 4: b"\x10", 8: b"\1\0", 16: b"\0\1\0\0"}[depth]
    decoded = decode(png(2, 1, depth, 0, b"\0" + row, chunk(b"tRNS", b"\0\1")))
    assert decoded.pixels.tolist() == [[[255] * 3, [0] * 3]]
    assert "transparency blended over white" in decoded.notes


def test_colour_with_one_transparent_value():
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (1, 2, 3))
    assert decode(saved(image, "PNG", transparency=(1, 2, 3))).pixels.tolist() == [[[255, 0, 0], [255] * 3]]
    deep = np.array([[[65535, 0, 0], [300, 600, 900]]], np.uint16)
    decoded = decode(png16(deep, chunk(b"tRNS", struct.pack(">HHH", 300, 600, 900))))
    assert decoded.pixels.tolist() == [[[255, 0, 0], [255] * 3]]


# Colour and depth


def test_cmyk_jpeg():
    data = saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95)
    assert b"Adobe" in data, "the marker that says: the values in the file are inverted"
    decoded = decode(data)
    assert np.abs(decoded.pixels.astype(int) - RED).max() < 12
    assert decoded.notes == ("converted from CMYK",)


def test_a_transparent_colour_of_16_bits_is_compared_in_all_of_them():
    rng = np.random.default_rng(3)
    key = np.array([0x1234, 0x56FF, 0x9A00])
    values = (key & 0xFF00 | rng.integers(0, 256, (6, 8, 3))).astype(np.uint16)  # the upper bytes are equal everywhere
    values[2, 3] = values[5, 7] = key
    decoded = decode(png16(values, chunk(b"tRNS", struct.pack(">HHH", *key))), background=(0, 255, 0))
    green = (decoded.pixels == (0, 255, 0)).all(axis=2)
    assert np.argwhere(green).tolist() == [[2, 3], [5, 7]]
    assert np.array_equal(decoded.pixels[~green], (values >> 8).astype(np.uint8)[~green])


def test_16_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 128, 129, 257, 32768, 65535], [1000, 256 * 100, 60000, 65407, 65406, 2]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    for source in (png16(values), Image.fromarray(values), saved(Image.fromarray(values), "TIFF"), values):
        decoded = decode(source)
        np.testing.assert_array_equal(decoded.pixels[..., 0], expected)
        assert decoded.notes == ("scaled from 16 bits",)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_is_scaled_not_clipped(channels):
    values = np.random.default_rng(1).integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    values[..., 3:] = 65535
    expected = np.rint(values[..., :3] / 257)
    for source in (png16(values), values):
        decoded = decode(source)
        assert np.abs(decoded.pixels - expected).max() <= 1
        assert decoded.notes == ("scaled from 16 bits",)


@pytest.mark.parametrize("mode", ["I;16B", "I;16L", "I;16"])
def test_both_byte_orders_of_16_bit_grey(mode):
    order = ">" if mode == "I;16B" else "<"
    image = Image.frombytes(mode, (2, 1), np.array([256, 65535], order + "u2").tobytes())
    assert decode(image).pixels[0, :, 0].tolist() == [1, 255]


def test_32_bit_grey_is_stretched():
    image = Image.fromarray(np.array([[-1000, 0, 1000]], np.int32))
    decoded = decode(image)
    assert decoded.pixels[0, :, 0].tolist() == [0, 128, 255]
    assert decoded.notes == ("stretched from -1000..1000",)
    decoded = decode(saved(Image.fromarray(np.array([[0, 65535]], np.int32)), "TIFF"))
    assert decoded.pixels[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        ([0, 0.5, 1], [0, 128, 255], "scaled from floating point"),
        ([0, 99.6, 255], [0, 100, 255], "rounded from floating point"),
        ([-1, 0, 3], [0, 64, 255], "stretched from -1..3"),
        ([7, 300, 7], [0, 255, 0], "stretched from 7..300"),
        ([np.nan, np.inf, 0.5], [128, 128, 128], "scaled from floating point"),
        ([np.nan, np.nan, np.nan], [0, 0, 0], "scaled from floating point"),
        ([400, 400, 400], [0, 0, 0], "stretched from 400..400"),
    ],
)
def test_floating_point_pictures(values, expected, note):
    image = Image.fromarray(np.array([values], np.float32))
    for source in (image, saved(image, "TIFF")):
        decoded = decode(source)
        assert decoded.pixels[0, :, 0].tolist() == expected
        assert decoded.notes == (note,)


def test_other_modes():
    for mode in ("1", "L", "P", "YCbCr", "HSV", "LAB", "CMYK", "RGBX"):
        white = Image.new("RGB", (4, 4), WHITE)
        image = Image.new("LAB", (4, 4), (255, 128, 128)) if mode == "LAB" else white.convert(mode)
        decoded = decode(image)
        assert decoded.pixels.shape == (4, 4, 3) and decoded.pixels.min() >= 253, mode
        assert decoded.notes == ((f"converted from {mode}",) if mode in ("YCbCr", "HSV", "LAB", "CMYK") else ())


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["1", "P", "L"])
def test_files_of_few_colours(form, mode):
    image = PICTURE.convert(mode)
    np.testing.assert_array_equal(decode(saved(image, form)).pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["TIFF", "BMP", "PPM", "TGA", "AVIF", "JPEG2000", "ICO"])
def test_other_formats(form):
    assert decode(saved(PICTURE.resize((32, 32)), form)).pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several(form):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    decoded = decode(saved(frames[0], form, save_all=True, append_images=frames[1:]))
    assert np.abs(decoded.pixels.astype(int) - RED).max() <= 2
    assert decoded.notes == ("first of 3 frames",)
