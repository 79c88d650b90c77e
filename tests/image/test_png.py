"""PNG files with metadata that is large, packed, broken or has a wrong checksum: the picture is worth having."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageSequence, PngImagePlugin

from jaxphoton.image import png
from jaxphoton.image.decode import decode
from tests.image.files import chunk, fault, photo, saved

PHOTO = photo(48, 64)
WHOLE = saved(Image.fromarray(PHOTO), "PNG")
HEAD, REST = WHOLE[:33], WHOLE[33:]
TRUE_COLOUR_KEY = struct.pack(">HHH", 300, 600, 900)


def wrong(raw: bytes) -> bytes:
    """The chunk with another checksum."""
    return raw[:-1] + bytes([raw[-1] ^ 1])


def with_chunks(*chunks: bytes) -> bytes:
    return HEAD + b"".join(chunks) + REST


def text(kind: bytes, length: int, key: bytes = b"workflow") -> bytes:
    body = b'{"id": 1},' * (length // 10)
    packed = zlib.compress(body)
    data = {
        b"tEXt": key + b"\0" + body,
        b"zTXt": key + b"\0\0" + packed,
        b"iTXt": key + b"\0\1\0\0\0" + packed,
        b"iCCP": key + b"\0\0" + packed,
        b"eXIf": b"MM\0*" + body,
        b"prVt": body,
    }[kind]
    return chunk(kind, data)


@pytest.mark.parametrize("length", [1_500_000, 70_000_000])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"prVt"])
def test_large_metadata_costs_nothing(kind, length):
    if length > 2_000_000 and kind in (b"tEXt", b"eXIf", b"prVt"):
        length = 20_000_000
    data = with_chunks(text(kind, length))
    tracemalloc.start()
    decoded = decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(decoded.pixels, PHOTO)
    assert decoded.notes == ()
    assert peak < 5 * len(data) + 2_000_000


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_many_texts_together(kind):
    # Each below Pillow's limit for one, all together beyond its limit for a file.
    np.testing.assert_array_equal(decode(with_chunks(*[text(kind, 1_000_000)] * 70)).pixels, PHOTO)


def test_texts_behind_the_pixels():
    data = WHOLE[:-12] + text(b"zTXt", 3_000_000) + WHOLE[-12:]
    np.testing.assert_array_equal(decode(data).pixels, PHOTO)


@pytest.mark.parametrize("key", [b"Raw profile type exif", b"XML:com.adobe.xmp"])
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_an_orientation_is_not_unpacked_without_bound(kind, key):
    np.testing.assert_array_equal(decode(with_chunks(text(kind, 50_000_000, key))).pixels, PHOTO)


def test_packed_texts_that_are_no_packed_texts():
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        for data in (b"", b"key", b"key\0\0garbage", b"Raw profile type exif\0\0garbage", b"\0" * 9):
            np.testing.assert_array_equal(decode(with_chunks(chunk(kind, data))).pixels, PHOTO)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("form", ["eXIf", "tEXt", "zTXt", "iTXt", "packed iTXt"])
def test_every_way_to_tell_the_orientation(form, behind):
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    profile = b"\nexif\n" + str(len(raw)).encode() + b"\n" + raw.hex().encode()
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    name, key = b"Raw profile type exif", b"XML:com.adobe.xmp"
    told = {
        "eXIf": chunk(b"eXIf", raw.removeprefix(b"Exif\0\0")),
        "tEXt": chunk(b"tEXt", name + b"\0" + profile),
        "zTXt": chunk(b"zTXt", name + b"\0\0" + zlib.compress(profile)),
        "iTXt": chunk(b"iTXt", key + b"\0\0\0\0\0" + xmp),
        "packed iTXt": chunk(b"iTXt", key + b"\0\1\0en\0key\0" + zlib.compress(xmp)),
    }[form]
    other = chunk(b"tEXt", b"Software\0x"), text(b"zTXt", 2_000_000), text(b"iTXt", 2_000_000)
    data = WHOLE[:-12] + b"".join((*other, told)) + WHOLE[-12:] if behind else with_chunks(*other, told)
    decoded = decode(data)
    np.testing.assert_array_equal(decoded.pixels, np.rot90(PHOTO, -1))
    assert decoded.notes == ("rotated by EXIF orientation 6",)


# Checksums


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("kind", [b"pHYs", b"iCCP", b"iTXt", b"zTXt", b"tEXt", b"eXIf", b"gAMA", b"sRGB", b"tRNS"])
def test_a_wrong_checksum_outside_the_pixels(kind, allow):
    data = TRUE_COLOUR_KEY if kind == b"tRNS" else struct.pack(">IIB", 2835, 2835, 1)
    decoded = decode(with_chunks(wrong(chunk(kind, data))), allow_truncated=allow)
    np.testing.assert_array_equal(decoded.pixels, PHOTO)
    assert decoded.notes == (f"wrong checksum in PNG chunk {kind.decode()}",)


def test_a_wrong_checksum_of_the_pixels():
    start = WHOLE.index(b"IDAT") - 4
    length = int.from_bytes(WHOLE[start : start + 4], "big")
    end = start + 12 + length
    data = WHOLE[:start] + wrong(WHOLE[start:end]) + WHOLE[end:]
    error = fault(data)
    assert (error.reason, error.fault) == ("corrupt", "the image data is damaged (wrong checksum in PNG chunk IDAT)")
    decoded = decode(data, allow_truncated=True)
    np.testing.assert_array_equal(decoded.pixels, PHOTO)
    assert decoded.notes == ("wrong checksum in PNG chunk IDAT",)


@pytest.mark.parametrize("allow", [False, True])
def test_a_wrong_checksum_of_header_or_palette(allow):
    head = WHOLE[:8] + wrong(WHOLE[8:33]) + REST
    coloured = saved(Image.fromarray(PHOTO).quantize(16), "PNG")
    start = coloured.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(coloured[start : start + 4], "big")
    for data in (head, coloured[:start] + wrong(coloured[start:end]) + coloured[end:]):
        assert fault(data, allow_truncated=allow).reason == "corrupt"


def test_a_wrong_checksum_of_the_end():
    np.testing.assert_array_equal(decode(wrong(WHOLE)).pixels, PHOTO)


def test_files_optimised_for_ios_are_named():
    error = fault(WHOLE[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + WHOLE[8:])
    assert error.reason == "unsupported" and "iOS" in error.fault


@pytest.mark.parametrize("allow", [False, True])
def test_broken_pixels_are_damage(allow):
    for place in (2, 40, 400):
        start = WHOLE.index(b"IDAT")
        length = int.from_bytes(WHOLE[start - 4 : start], "big")
        body = bytearray(WHOLE[start + 4 : start + 4 + length])
        body[place] ^= 255
        assert fault(HEAD + chunk(b"IDAT", bytes(body)) + WHOLE[-12:], allow_truncated=allow).reason == "corrupt"


# What stays


def test_animations_show_their_first_frame():
    images = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1]), Image.fromarray(PHOTO[:, ::-1])]
    for separate, frames in ((False, 3), (True, 3)):
        data = saved(images[0], "PNG", save_all=True, append_images=images[1:], default_image=separate)
        decoded = decode(data)
        np.testing.assert_array_equal(decoded.pixels, PHOTO)
        assert decoded.notes == (f"first of {frames} frames",)
        assert frames == sum(1 for _ in ImageSequence.Iterator(Image.open(io.BytesIO(data))))


def test_what_changes_pixels_stays():
    images = {
        "palette": (Image.fromarray(PHOTO).quantize(16), {"transparency": 3}),
        "grey": (Image.fromarray(PHOTO).convert("L"), {"transparency": 9}),
        "alpha": (Image.fromarray(PHOTO).convert("RGBA"), {}),
    }
    for image, options in images.values():
        data = saved(image, "PNG", **options)
        stream, notes = png.without_metadata(io.BytesIO(data), False)
        before, after = Image.open(io.BytesIO(data)), Image.open(stream)
        assert notes == [] and after.info.get("transparency") == before.info.get("transparency")
        np.testing.assert_array_equal(np.asarray(after.convert("RGBA")), np.asarray(before.convert("RGBA")))


def test_pillow_is_left_as_it_was():
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    decode(with_chunks(text(b"zTXt", 3_000_000)))
    assert (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY) == limits
