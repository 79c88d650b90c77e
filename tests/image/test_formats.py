"""Formats beyond the usual: decoded, or named; and that what is good is never called damaged."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, IptcImagePlugin

from jaxphoton.image.decode import decode
from jaxphoton.image.prepare import prepare
from jaxphoton.models.registry import named_family
from tests.image.files import fault, photo, saved

pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is missing: HEIC is NOT tested")
imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs is missing: unusual files are NOT tested")

PHOTO = photo(48, 64)
GREY = PHOTO[..., 0].copy()
PICTURE = Image.fromarray(PHOTO)
LARGE = b"<x>" + b"metadata " * 600_000


# HEIC and AVIF


def heic(orientation: int = 1, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    pillow_heif.from_pillow(PICTURE).save(file, quality=98, exif=exif.tobytes(), **options)
    return file.getvalue()


@pytest.fixture
def without_heif(monkeypatch):
    """Nobody has registered HEIF with Pillow; what a test registers is gone afterwards."""
    Image.init()
    for table in (Image.OPEN, Image.MIME, Image.SAVE, Image.SAVE_ALL, Image.EXTENSION):
        for name in [name for name, value in table.items() if "HEIF" in (name, value)]:
            monkeypatch.delitem(table, name)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_upright_once(orientation, without_heif):
    decoded = decode(heic(orientation))
    upright = {1: PHOTO, 3: PHOTO[::-1, ::-1], 6: np.rot90(PHOTO, -1), 8: np.rot90(PHOTO)}
    if orientation in upright:
        assert np.abs(decoded.pixels.astype(int) - upright[orientation]).mean() < 6
    assert decoded.pixels.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    assert decoded.notes == ()


def test_heic_as_path_and_stream_and_of_a_user_who_registered_it(tmp_path, without_heif):
    (tmp_path / "IMG_1.HEIC").write_bytes(heic())
    first = decode(tmp_path / "IMG_1.HEIC").pixels
    pillow_heif.register_heif_opener()
    np.testing.assert_array_equal(decode(io.BytesIO(heic())).pixels, first)
    np.testing.assert_array_equal(decode(Image.open(tmp_path / "IMG_1.HEIC")).pixels, first)


def test_heic_with_several_pictures_shows_the_first():
    file = io.BytesIO()
    both = pillow_heif.from_pillow(PICTURE)
    both.add_from_pillow(Image.fromarray(PHOTO[::-1]))
    both.save(file, quality=98)
    decoded = decode(file.getvalue())
    assert np.abs(decoded.pixels.astype(int) - PHOTO).mean() < 6 and decoded.notes == ()


def test_heic_without_the_package_says_what_to_install(monkeypatch, without_heif):
    data = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    error = fault(data)
    assert error.reason == "unsupported" and error.fault.endswith("pip install 'jaxphoton[heif]'")


def test_damaged_heic():
    assert fault(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)).reason == "corrupt"
    assert fault(heic()[:-200]).reason in ("corrupt", "truncated")


def test_heic_too_large_is_not_decoded():
    assert fault(heic(), max_pixels=1000).reason == "too-large"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_upright_once(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(saved(PICTURE, "AVIF", quality=95, exif=exif))
    upright = {1: PHOTO, 3: PHOTO[::-1, ::-1], 6: np.rot90(PHOTO, -1), 8: np.rot90(PHOTO)}
    if orientation in upright:
        assert np.abs(decoded.pixels.astype(int) - upright[orientation]).mean() < 6
    assert decoded.notes == (() if orientation == 1 else (f"rotated by EXIF orientation {orientation}",))


# Large metadata


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"comment": b"x" * 60_000, "icc_profile": LARGE}),
        ("WEBP", {"lossless": True, "icc_profile": LARGE, "exif": b"Exif\0\0" + LARGE, "xmp": LARGE}),
        ("TIFF", {"tiffinfo": {270: LARGE.decode(), 700: LARGE}, "icc_profile": LARGE}),
        ("GIF", {"comment": LARGE[:400_000]}),
        ("AVIF", {"icc_profile": LARGE, "xmp": LARGE}),
        ("JPEG2000", {"comment": b"x" * 60_000}),
        ("MPO", {"save_all": True, "append_images": [PICTURE], "icc_profile": LARGE[:900_000]}),
    ],
)
def test_large_metadata_costs_no_picture(form, options):
    decoded = decode(saved(PICTURE, form, **options))
    assert decoded.pixels.shape == (48, 64, 3) and np.abs(decoded.pixels.astype(int) - PHOTO).mean() < 30


# JPEG to everybody


def phone_photo(form: str, orientation: int = 1) -> bytes:
    picture = Image.fromarray(photo(9, 12)).resize((2600, 1900), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {"save_all": True, "append_images": [picture.resize((640, 480))]} if form == "MPO" else {}
    return saved(picture, form, quality=90, exif=exif, **more)


@pytest.mark.parametrize("orientation", [1, 6])
def test_photos_with_a_second_picture_are_reduced_like_jpegs(orientation):
    pictures = named_family("moondream2").pictures
    plain, double = phone_photo("JPEG", orientation), phone_photo("MPO", orientation)
    assert Image.open(io.BytesIO(double)).format == "MPO"
    fast, exact = prepare(double, pictures, fast=True), prepare(double, pictures)
    assert fast.digest == prepare(plain, pictures, fast=True).digest != exact.digest
    assert fast.size == exact.size and fast.notes == exact.notes
    assert exact.digest == prepare(plain, pictures).digest


# Good files without a decoder


def encoded(name: str) -> bytes:
    twelve = PHOTO.astype(np.uint16) * 16
    return {
        "12-bit JPEG": lambda: imagecodecs.jpeg8_encode(twelve, bitspersample=12),
        "12-bit JPEG ": lambda: imagecodecs.jpeg8_encode(GREY.astype(np.uint16) * 16, bitspersample=12),
        "16-bit lossless JPEG": lambda: imagecodecs.jpeg8_encode(
            GREY.astype(np.uint16) * 257, lossless=True, bitspersample=16
        ),
        "JPEG-LS": lambda: imagecodecs.jpegls_encode(PHOTO),
        "JPEG XL": lambda: imagecodecs.jpegxl_encode(PHOTO),
        "JPEG XL ": lambda: imagecodecs.jpegxl_encode(PHOTO, usecontainer=True),
        "JPEG XR": lambda: imagecodecs.jpegxr_encode(PHOTO),
        "16-bit JPEG 2000": lambda: imagecodecs.jpeg2k_encode(PHOTO.astype(np.uint16) * 257, level=0),
        "12-bit JPEG 2000": lambda: imagecodecs.jpeg2k_encode(twelve, bitspersample=12, codecformat="j2k", level=0),
        "9-bit JPEG 2000": lambda: imagecodecs.jpeg2k_encode(GREY.astype(np.uint16) * 2, bitspersample=9, level=0),
        "JPEG with 2 colour components": lambda: jpeg_header(0xC0, 8, 2),
        "hierarchical JPEG": lambda: jpeg_header(0xC5, 8, 3),
        "arithmetic-coded lossless": lambda: jpeg_header(0xCB, 16, 1),
        "camera raw": lambda: b"FUJIFILMCCD-RAW 0201" + bytes(200),
        "camera raw ": lambda: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(100),
        "camera raw  ": lambda: b"IIU\0\x18\0\0\0" + bytes(100),
        "PSB": lambda: b"8BPS\0\2" + bytes(100),
        "Photoshop": lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 32, 3) + bytes(100),
        "PDF": lambda: b"%PDF-1.7\n" + bytes(100),
        "OpenEXR": lambda: b"v/1\1\2\0\0\0" + bytes(100),
        "DICOM": lambda: bytes(128) + b"DICM" + bytes(100),
        "PAM": lambda: b"P7\nWIDTH 4\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(12),
        "PFM": lambda: b"PF\n1 1\n-1.0\n" + bytes(12),
        "MNG": lambda: b"\x8aMNG\r\n\x1a\n" + bytes(100),
        "compression": lambda: bmp(compression=4),
        "SVG": lambda: b"<!-- made by -->\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    }[name]()


NAMES = (
    "12-bit JPEG|12-bit JPEG |16-bit lossless JPEG|JPEG-LS|JPEG XL|JPEG XL |JPEG XR|16-bit JPEG 2000|12-bit JPEG 2000|"
    "9-bit JPEG 2000|JPEG with 2 colour components|hierarchical JPEG|arithmetic-coded lossless|camera raw|camera raw |"
    "camera raw  |PSB|Photoshop|PDF|OpenEXR|DICOM|PAM|PFM|MNG|compression|SVG"
).split("|")


def jpeg_header(process: int, bits: int, samples: int) -> bytes:
    frame = bytes([bits]) + struct.pack(">HHB", 8, 8, samples) + b"".join(bytes([k, 17, 0]) for k in range(samples))
    return b"\xff\xd8\xff\xe0\0\4ab\xff\xff" + bytes([process, 0, 2 + len(frame)]) + frame + b"\xff\xda"


def bmp(compression: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 24, compression, 192, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 192, 0, 0, 54) + head + bytes(192)


@pytest.mark.parametrize("name", NAMES)
def test_good_files_without_a_decoder_are_named(name):
    error = fault(encoded(name))
    assert error.reason == "unsupported" and name.strip() in error.fault and "not supported" in error.fault


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_jpeg_2000_in_grey(bits):
    values = np.rint(GREY / 255.0 * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)
    data = imagecodecs.jpeg2k_encode(values, bitspersample=bits, level=0)
    assert np.abs(decode(data).pixels[..., 0].astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("colour", [PHOTO, GREY])
def test_lossless_jpeg_of_8_bits(colour):
    decoded = decode(imagecodecs.jpeg8_encode(colour, lossless=True))
    np.testing.assert_array_equal(decoded.pixels, np.broadcast_to(colour.reshape(48, 64, -1), (48, 64, 3)))


def test_damaged_jpegs_are_not_called_unsupported():
    whole = saved(PICTURE, "JPEG")
    for cut in (3, 20, 100, 200, len(whole) - 100):
        assert fault(whole[:cut]).reason in ("truncated", "corrupt")
    assert fault(b"\xff\xd8\xff" + bytes(200)).reason == "corrupt"


# Every suffix that Pillow knows


@pytest.mark.parametrize("bits", [8, 16, 32, -32, -64])
@pytest.mark.parametrize("zero", [None, 32768])
def test_fits_of_every_depth(bits, zero):
    low, high = {8: (0, 255), 16: (-32768, 32767), 32: (-(2**31), 2**31 - 1)}.get(bits, (0, 1))
    kind = np.dtype({8: "u1", 16: ">i2", 32: ">i4", -32: ">f4", -64: ">f8"}[bits])
    values = np.linspace(low, high, 256).astype(kind).reshape(4, 64)
    cards = {"SIMPLE": "T", "BITPIX": bits, "NAXIS": 2, "NAXIS1": 64, "NAXIS2": 4, **({"BZERO": zero} if zero else {})}
    head = "".join(f"{name:<8}= {value:>20}".ljust(80) for name, value in cards.items()) + "END"
    data = head.encode().ljust(2880) + values[::-1].tobytes().ljust(2880, b"\0")
    pixels = decode(data).pixels[..., 0].astype(int)
    assert np.abs(pixels.ravel() - np.linspace(0, 255, 256)).max() <= 1


def test_bmp_of_16_bits_a_pixel_was_not_scaled_from_16_bits_a_sample():
    head = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    decoded = decode(b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + head + struct.pack("<HH", 0x7FFF, 0))
    assert decoded.pixels.tolist() == [[[255] * 3, [0] * 3]] and decoded.notes == ()


PICTURES = "BMP DIB GIF PNG JPEG JPEG2000 TIFF WEBP AVIF ICO ICNS PPM TGA DDS PCX SGI QOI MSP XBM SPIDER".split()


@pytest.mark.parametrize("form", PICTURES)
def test_each_format_that_pillow_writes(form, tmp_path):
    picture = PICTURE.resize((64, 64))
    picture = picture.convert({"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(form, "RGB"))
    if form == "ICO":
        picture.save(tmp_path / "file", form, sizes=[(64, 64)])
    else:
        picture.save(tmp_path / "file", form)
    decoded = decode(tmp_path / "file")
    assert decoded.pixels.ndim == 3 and min(decoded.pixels.shape[:2]) >= 64


def test_no_suffix_makes_a_file_fail_otherwise_than_by_name(tmp_path):
    Image.init()
    suffixes = sorted({*Image.registered_extensions(), ".raw", ".jxl", ".jfif", ".jpe"})
    for number, suffix in enumerate(suffixes):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(b"not a picture at all " * 20)
        assert fault(path).reason == "not-an-image", suffix
        path.write_bytes(saved(PICTURE, "PNG"))
        np.testing.assert_array_equal(decode(path).pixels, PHOTO, suffix)


def test_postscript_is_never_run(tmp_path, monkeypatch):
    def run(*args, **options):
        raise AssertionError("somebody asked for it")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", run)
    monkeypatch.setattr(IptcImagePlugin.IptcImageFile, "_open", run)
    data = saved(PICTURE, "EPS")
    binary = b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(data)) + bytes(20) + data
    for name, body in (("a.eps", data), ("b.jpg", data), ("c.ps", binary), ("d.png", b"\x1c\x03\x3c\0\1x" + data)):
        (tmp_path / name).write_bytes(body)
        error = fault(tmp_path / name)
        assert error.reason in ("unsupported", "not-an-image")
        assert name == "d.png" or "PostScript" in error.fault


@pytest.mark.parametrize("key", [None, 0])
def test_a_palette_inside_an_apple_icon_is_kept(key):
    picture = Image.new("P", (64, 64), 1)
    picture.putpalette([250, 0, 0, 0, 200, 90])
    picture.paste(0, (0, 0, 64, 32))
    file = io.BytesIO()
    if key is not None:
        picture.info["transparency"] = key
    picture.save(file, "ICNS")
    pixels = decode(file.getvalue(), background=(1, 2, 3)).pixels
    top = (1, 2, 3) if key == 0 else (250, 0, 0)
    assert tuple(pixels[0, 0]) == top and tuple(pixels[-1, -1]) == (0, 200, 90)
