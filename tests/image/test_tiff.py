"""TIFF files of every kind: the pixels that tifffile reads, or "not supported"; never a third."""

from __future__ import annotations

import collections
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxphoton.image import tiff
from jaxphoton.image.decode import ImageError, decode
from tests.image import tiffs
from tests.image.files import fault, photo, saved
from tests.image.tiffs import BLACK_IS_ZERO, CMYK, FLOAT, PALETTE, RGB, SIGNED, UNSIGNED, WHITE_IS_ZERO, Kind

tifffile = pytest.importorskip("tifffile", reason="tifffile is missing: TIFF files are NOT compared with its reading")
imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs is missing: packed TIFF files are NOT tested")

COLOURS = np.random.default_rng(0).integers(0, 65536, (65536, 3))
PHOTO = photo(48, 64)
GREY = PHOTO[..., 0].copy()

# Photometric interpretation, bits, form of a sample, further samples. In one plane, in the byte order "<", unpacked.
RIGHT = {
    *((grey, bits, UNSIGNED, ()) for grey in (WHITE_IS_ZERO, BLACK_IS_ZERO) for bits in (1, 2, 4, 8, 16)),
    *((BLACK_IS_ZERO, bits, SIGNED, ()) for bits in (16, 32)),
    *((grey, 32, FLOAT, ()) for grey in (WHITE_IS_ZERO, BLACK_IS_ZERO)),
    (BLACK_IS_ZERO, 32, UNSIGNED, ()),
    (BLACK_IS_ZERO, 8, UNSIGNED, (2,)),
    *((RGB, bits, UNSIGNED, extra) for bits in (8, 16) for extra in ((), (0,), (1,), (2,))),
    *((CMYK, bits, UNSIGNED, ()) for bits in (8, 16)),
    *((PALETTE, bits, UNSIGNED, ()) for bits in (1, 2, 4, 8)),
}


def read_by_tifffile(kind: Kind, data: bytes) -> np.ndarray:
    """Values [height, width, samples]."""
    values = tifffile.imread(io.BytesIO(data))
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.ndim == 2:
        return values[..., None]
    return np.moveaxis(values, 0, -1) if kind.planar else values


def in_8_bits(kind: Kind, values: np.ndarray) -> np.ndarray:
    if kind.form == FLOAT:
        return values.astype(np.float64) * 255
    low = -(2 ** (kind.bits - 1)) if kind.form == SIGNED else 0
    return (values.astype(np.float64) - low) / (2**kind.bits - 1) * 255


def converted(values: np.ndarray, mode: str) -> np.ndarray:
    image = Image.frombytes(mode, values.shape[1::-1], np.ascontiguousarray(values).tobytes())
    return np.asarray(image.convert("RGB"))


def upright_rgb(kind: Kind, values: np.ndarray) -> np.ndarray:
    """float64 [height, width, 3] over white."""
    if kind.photometric == PALETTE:
        rgb, parts = (COLOURS[values[..., 0]] >> 8).astype(np.float64), in_8_bits(kind, values)
        colours = 1
    else:
        parts, colours = in_8_bits(kind, values), kind.samples - len(kind.extra)
        rgb = parts[..., :colours]
    alpha = parts[..., [colours]] / 255 if kind.extra[:1] in ((1,), (2,)) else 1.0
    if kind.extra[:1] == (1,):
        rgb = rgb / np.maximum(alpha, 1e-9)
    if kind.photometric == WHITE_IS_ZERO:
        rgb = 255 - rgb
    if kind.photometric == CMYK:
        rgb = converted(np.rint(rgb).astype(np.uint8), "CMYK").astype(np.float64)
    return np.broadcast_to(rgb * alpha + 255 * (1 - alpha), (*values.shape[:2], 3))


def written(kind: Kind, **tags) -> bytes:
    colours = COLOURS[: 2**kind.bits] if kind.photometric == PALETTE else None
    return tiffs.write(kind, tiffs.picture(kind), colours, **tags)


def test_the_whole_matrix():
    wrong, damaged = [], []
    # A prime step, so that each setting meets each other one.
    for kind in list(tiffs.kinds())[::7]:
        data = written(kind)
        values = read_by_tifffile(kind, data)
        np.testing.assert_array_equal(values, tiffs.picture(kind), str(kind))
        try:
            pixels = decode(data).pixels
        except ImageError as error:
            if error.reason != "unsupported" or "this kind of TIFF (" not in error.fault:
                damaged.append((kind, str(error)))
            continue
        if np.abs(pixels - upright_rgb(kind, values)).max() > 2:
            wrong.append(kind)
    assert not wrong and not damaged


@pytest.mark.parametrize("kind", sorted(RIGHT))
@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_common_kinds_are_right(kind, compression):
    photometric, bits, form, extra = kind
    one = Kind(photometric, bits, form, compression=compression, extra=extra)
    expected = upright_rgb(one, tiffs.picture(one))
    assert np.abs(decode(written(one)).pixels - expected).max() <= 2


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize("extra", [(), (0,), (2,)])
def test_16_bit_colour_in_separate_planes(order, tile, extra):
    kind = Kind(RGB, 16, order=order, planar=True, tile=tile, extra=extra)
    decoded = decode(written(kind))
    assert np.abs(decoded.pixels - upright_rgb(kind, tiffs.picture(kind))).max() <= 1
    assert decoded.notes[0] == "scaled from 16 bits"


def test_a_picture_that_somebody_opened_is_read_the_same_way():
    for kind in (Kind(RGB, 16, planar=True), Kind(WHITE_IS_ZERO, 16), Kind(BLACK_IS_ZERO, 32)):
        data = written(kind)
        np.testing.assert_array_equal(decode(Image.open(io.BytesIO(data))).pixels, decode(data).pixels)


def test_12_bit_grey_is_scaled():
    values = np.linspace(0, 4095, 64 * 8).astype(np.uint16).reshape(8, 64)
    file = io.BytesIO()
    tifffile.imwrite(file, values, bitspersample=12)
    decoded = decode(file.getvalue())
    np.testing.assert_array_equal(decoded.pixels[..., 0], np.rint(values / 4095 * 255))
    assert decoded.notes == ("scaled from 12 bits",)


def test_a_palette_of_8_bit_entries():
    kind = Kind(PALETTE, 8)
    colours = np.random.default_rng(1).integers(0, 256, (256, 3))
    data = tiffs.write(kind, tiffs.picture(kind), colours)
    np.testing.assert_array_equal(decode(data).pixels, colours[tiffs.picture(kind)[..., 0]])


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr", "minisblack", "miniswhite"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"subsampling": (1, 1)}, {"rowsperstrip": 16}])
def test_jpeg_inside(photometric, options):
    values = PHOTO if photometric in ("rgb", "ycbcr") else GREY
    file = io.BytesIO()
    tifffile.imwrite(file, values, compression="jpeg", photometric=photometric, **options)
    expected = tifffile.imread(io.BytesIO(file.getvalue())).astype(int).reshape(48, 64, -1)
    expected = 255 - expected if photometric == "miniswhite" else expected
    assert np.abs(decode(file.getvalue()).pixels - expected).max() <= 2


def ycbcr(compression: str, planar: bool, halved: bool, monkeypatch) -> tuple[bytes, np.ndarray]:
    """A file and what it shows; `halved`: one Cb and one Cr for each four pixels."""
    values = np.asarray(Image.fromarray(PHOTO).convert("YCbCr")).copy()
    if not halved:
        tags: dict[str, Any] = {"ph": (262, [6]), "sub": (530, [1, 1])}
        return tiffs.write(Kind(RGB, compression=compression, planar=planar), values, **tags), PHOTO
    small = values[..., 1:].reshape(24, 2, 32, 2, 2).mean((1, 3)).astype(np.uint8)
    values[..., 1:] = small.repeat(2, 0).repeat(2, 1)
    light = values[..., 0].reshape(24, 2, 32, 2).transpose(0, 2, 1, 3).reshape(24, 32, 4)
    planes = iter([values[..., 0], small[..., 0], small[..., 1]])
    packed = np.concatenate([light, small], axis=-1).tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(tiffs, "_bytes", lambda kind, piece: next(planes).tobytes() if planar else packed)
        data = tiffs.write(Kind(RGB, compression=compression, planar=planar), values, ph=(262, [6]))
    return data, converted(values, "YCbCr")


@pytest.mark.parametrize("compression", ["none", "lzw", "packbits"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("halved", [False, True])
def test_ycbcr_without_jpeg(compression, planar, halved, monkeypatch):
    data, expected = ycbcr(compression, planar, halved, monkeypatch)
    if compression == "none" or (halved and planar):
        assert fault(data).reason == "unsupported" and "YCbCr" in fault(data).fault
    else:
        assert np.abs(decode(data).pixels - expected.astype(int)).max() <= 3


# Refused by name


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (PHOTO, {"compression": "jpegxl"}, "JPEG XL"),
        (PHOTO, {"compression": "jpeg2000"}, "JPEG 2000"),
        (PHOTO, {"compression": "lerc"}, "LERC"),
        (PHOTO.astype(np.float32), {}, "3 samples of 32 bits, floating point, RGB"),
        (GREY.astype(np.float64), {}, "1 sample of 64 bits, floating point, grey"),
        (GREY.astype(np.int8), {}, "1 sample of 8 bits, signed, grey"),
        (GREY.astype(np.complex64), {}, "complex"),
        (PHOTO, {"bigtiff": True, "byteorder": ">"}, "BigTIFF, big-endian"),
        (PHOTO.astype(np.float32), {"bigtiff": True}, "floating point"),
    ],
)
def test_kinds_without_a_decoder_are_named(values, options, words):
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="rgb" if values.ndim == 3 else None, **options)
    error = fault(file.getvalue())
    assert error.reason == "unsupported" and words in error.fault and "not supported" in error.fault


def test_bands_marked_as_grey_are_named():
    data = tiffs.write(Kind(RGB), PHOTO, ph=(262, [1]))
    assert fault(data).fault == "this kind of TIFF (3 samples of 8 bits, grey, uncompressed) is not supported"


def test_inks_other_than_cmyk_are_refused():
    assert fault(written(Kind(CMYK), inks=(332, [2]))).reason == "unsupported"
    decode(written(Kind(CMYK), inks=(332, [1])))


def test_a_camera_raw_file_is_not_taken_for_its_preview():
    for tags in ({"dng": (50706, [1])}, {"preview": (254, [1]), "more": (330, [8])}):
        error = fault(written(Kind(), **tags))
        assert error.reason == "unsupported" and "raw" in error.fault
    decode(written(Kind(), preview=(254, [1])))


def test_a_packing_that_this_pillow_has_no_decoder_for(monkeypatch):
    data = bytearray(written(Kind(compression="lzma", tile=16)))
    data[12:40] = bytes(28)
    assert fault(bytes(data)).reason == "corrupt"
    assert tiff._has_codec("lzma") and tiff._has_codec("tiff_lzw")
    monkeypatch.setattr("jaxphoton.image.tiff._has_codec", lambda name: name != "lzma")
    assert fault(bytes(data)).reason == "unsupported"


def test_a_damaged_tiff_is_still_called_damaged():
    reasons = collections.Counter()
    whole = saved(Image.fromarray(PHOTO), "TIFF", compression="tiff_lzw")
    for cut in (4, 8, 30, 100, len(whole) // 2):
        reasons[fault(whole[:cut] if cut < 100 else whole[:-cut]).reason] += 1
    assert "unsupported" not in reasons
    mixed = bytearray(whole)
    mixed[200:400] = bytes(200)
    assert fault(bytes(mixed)).reason == "corrupt"
