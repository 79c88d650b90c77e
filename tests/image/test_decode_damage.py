"""Truncated, oversized and damaged files; and the globals of Pillow, which stay as they were."""

from __future__ import annotations

import io
import struct
import threading
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from jaxphoton.image.decode import REASONS, ImageError, decode
from tests.image.files import chunk, fault, photo, saved

PHOTO = photo(48, 64)
PICTURE = Image.fromarray(PHOTO)
RED = (255, 0, 0)

# Truncated files


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_truncated_files_fail_unless_allowed(form):
    picture = Image.fromarray(photo(200, 300))
    whole = saved(picture, form, **({"interlace": 0} if form == "GIF" else {}))
    cut = whole[: len(whole) * 2 // 3]
    error = fault(cut)
    assert (error.reason, error.fault) == ("truncated", "the file is cut short")
    decoded = decode(cut, allow_truncated=True)
    assert "truncated file" in decoded.notes
    expected = decode(whole).pixels
    assert decoded.pixels.shape == expected.shape
    rows = slice(110, None) if form == "BMP" else slice(0, 90)  # BMP is stored from the bottom up
    np.testing.assert_array_equal(decoded.pixels[rows], expected[rows])
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_truncated_progressive_jpeg_shows_its_coarse_picture():
    picture = Image.fromarray(photo(200, 300))
    whole = saved(picture, "JPEG", progressive=True, quality=90)
    decoded = decode(whole[: len(whole) // 2], allow_truncated=True)
    assert np.abs(decoded.pixels.astype(int) - decode(whole).pixels).mean() < 20


def test_a_truncated_webp_fails_either_way():
    whole = saved(Image.fromarray(photo(200, 300)), "WEBP")
    for allow in (False, True):
        assert fault(whole[: len(whole) // 2], allow_truncated=allow).reason in ("truncated", "corrupt", "not-an-image")


def test_allowing_truncated_files_does_not_hide_damage():
    data = bytearray(saved(Image.fromarray(photo(200, 300)), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert fault(bytes(data), allow_truncated=True).reason == "corrupt"


def test_whole_files_get_no_note_where_truncated_ones_are_allowed():
    assert decode(saved(PICTURE, "JPEG"), allow_truncated=True).notes == ()


def test_a_lazily_opened_truncated_picture():
    whole = saved(Image.fromarray(photo(200, 300)), "JPEG")
    for allow in (False, True):
        image = Image.open(io.BytesIO(whole[: len(whole) // 2]))
        if allow:
            assert decode(image, allow_truncated=True).notes == ("truncated file",)
        else:
            assert fault(image).reason == "truncated"


# Size


def huge_png(width: int, height: int) -> bytes:
    """A header that promises pixels, and data that no decoder could read."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"garbage") + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 10_000), (16_000, 11_200), (65_000, 65_000)])
def test_too_large_pictures_are_refused_by_their_header(size, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))
    error = fault(huge_png(*size))
    assert error.reason == "too-large" and "limit of 179.0 megapixels" in error.fault


def test_the_limit_is_in_force_from_the_first_pixel_on():
    data = saved(PICTURE, "PNG")
    assert decode(data, max_pixels=48 * 64).pixels.shape == (48, 64, 3)
    for source in (data, PICTURE, PHOTO):
        error = fault(source, max_pixels=48 * 64 - 1)
        assert error.reason == "too-large" and "64 x 48 pixels" in error.fault


def test_large_pictures_below_the_limit_give_no_warning():
    # 100 megapixels: Pillow itself warns from 89 on.
    assert fault(huge_png(10_000, 10_000)).reason in ("corrupt", "truncated")


def test_a_raised_limit_leaves_pillows_own_in_place(monkeypatch):
    limit = Image.MAX_IMAGE_PIXELS
    assert fault(huge_png(20_000, 10_000), max_pixels=10**9).reason in ("corrupt", "truncated")
    assert Image.MAX_IMAGE_PIXELS == limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert fault(huge_png(20_000, 10_000)).fault.startswith("20000 x 10000 pixels")


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (1, 2)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF"])
def test_thin_pictures(size, form):
    assert decode(saved(Image.new("RGB", size, RED), form)).pixels.shape == (size[1], size[0], 3)


# Damage


WHOLE = {
    "PNG": saved(PICTURE.convert("RGBA").resize((12, 9)), "PNG"),
    "palette": saved(PICTURE.convert("P").resize((12, 9)), "PNG", transparency=3),
    "JPEG": saved(PICTURE.resize((24, 17)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "GIF": saved(PICTURE.resize((12, 9)), "GIF", save_all=True, append_images=[Image.new("RGB", (12, 9))]),
    "TIFF": saved(PICTURE.resize((12, 9)), "TIFF"),
    "BMP": saved(PICTURE.convert("P").resize((12, 9)), "BMP"),
    "WEBP": saved(PICTURE.resize((12, 9)), "WEBP"),
}


@pytest.mark.parametrize("form", WHOLE)
@given(
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 200),
    allow=st.booleans(),
)
@example(changes=[], cut=0, allow=False)
def test_any_damage_decodes_or_raises_image_error(form, changes, cut, allow):
    data = bytearray(WHOLE[form])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        decoded = decode(bytes(data[: len(data) - cut]), allow_truncated=allow, max_pixels=10**6)
    except ImageError as error:
        assert error.reason in REASONS and (changes or cut)
    else:
        assert decoded.pixels.ndim == 3 and decoded.pixels.shape[2] == 3 and decoded.pixels.dtype == np.uint8


@given(data=st.binary(max_size=300))
def test_any_bytes_decode_or_raise_image_error(data):
    try:
        decode(data, max_pixels=10**6)
    except ImageError as error:
        assert error.reason in REASONS


# Globals


def test_warnings_of_pillow_do_not_leak():
    # Pillow warns about an EXIF block with an overlong entry when it is read.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIIHHIHHI", 0x010F, 2, 200, 5000, 0x0112, 3, 1, 6, 0, 0)
    data = saved(PICTURE, "JPEG", exif=exif)
    with pytest.warns(UserWarning, match="Tag data"):
        Image.open(io.BytesIO(data)).getexif().get(0x0112)
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(data)
    assert not caught
    assert list(warnings.filters) == filters


def test_threads_do_not_see_each_others_settings():
    whole = saved(Image.fromarray(photo(100, 100)), "PNG")
    cut, filters, wrong = whole[: len(whole) // 2], list(warnings.filters), []

    def work(allow: bool):
        for _ in range(20):
            try:
                ok = decode(cut, allow_truncated=allow).notes == ("truncated file",) and allow
            except ImageError as error:
                ok = error.reason == "truncated" and not allow
            wrong.extend([] if ok else [allow])

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert list(warnings.filters) == filters
