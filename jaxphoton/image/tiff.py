"""TIFF files: where Pillow reads another picture than the file holds, it is told better or the file is refused.

A TIFF says how its samples lie by a dozen tags, and Pillow looks their combination up in a table of its own; what is
in the table is not always what then happens. Everything here was found by comparing with tifffile
(`tests/image/test_tiff.py`).
"""

from __future__ import annotations

import functools
import io
import lzma
import struct
from typing import IO, Any

from PIL import Image, ImagePalette, features

from jaxphoton.image.colour import Form
from jaxphoton.image.errors import Refused

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES, _COLORMAP = 258, 259, 262, 277, 284, 320
_SUBFILE, _SUB_DIRECTORIES, _INK_SET, _EXTRA, _SAMPLE_FORM, _SUBSAMPLING, _DNG = 254, 330, 332, 338, 339, 530, 50706
_STRIPS, _TILES = 273, 324

_WHITE_IS_ZERO, _YCBCR, _SEPARATED = 0, 6, 5
_COLOURS = {
    0: "grey, 0 is white",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_FORMS = {1: "unsigned", 2: "signed", 3: "floating point", 4: "undefined", 5: "complex", 6: "complex"}
_COMPRESSIONS = {
    1: "uncompressed",
    2: "CCITT",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "Deflate",
    22610: "JPEG XR",
    32767: "Sony ARW",
    32773: "PackBits",
    32946: "Deflate",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34713: "Nikon NEF",
    34887: "LERC",
    34892: "lossy JPEG of a DNG",
    34925: "LZMA",
    34934: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
    65000: "Kodak DCR",
    65535: "Pentax PEF",
}
# libtiff hands samples over in the byte order of the machine; for these Pillow still swaps.
_SWAPPED = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}


def adapt(image: Any) -> Form:
    """Makes an opened `TiffImageFile` load what the file holds.

    Returns:
      how its samples are to be read once it is loaded.

    Raises:
      Refused: Pillow would read something else, and nothing can be done about it.
    """
    tags = image.tag_v2
    refused = functools.partial(Refused, "unsupported", f"this kind of TIFF ({_describe(tags)}) is not supported")
    if _DNG in tags or (_SUB_DIRECTORIES in tags and tags.get(_SUBFILE, 0) & 1):
        raise Refused("unsupported", "camera raw files are not supported")
    photometric = tags.get(_PHOTOMETRIC, 0)
    packed, planes = tags.get(_COMPRESSION, 1) != 1, tags.get(_PLANES, 1) == 2
    bits, form = max(tags.get(_BITS, (1,))), max(tags.get(_SAMPLE_FORM, (1,)))
    rawmode = str(image.tile[0][3][0]) if image.tile else ""
    if bits == 8 and form == 2:
        raise refused()
    if photometric == _SEPARATED and tags.get(_INK_SET, 1) != 1:
        raise refused()
    if photometric == _YCBCR and tags.get(_COMPRESSION, 1) not in (6, 7):
        # Unpacked it would be right from Pillow 13 on, and without subsampling, which is not the default.
        if not packed or (planes and tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1)):
            raise refused()
    if planes and image.mode in ("LA", "La", "PA"):
        raise refused()
    if planes and image.tile:
        if not packed and bits == 16:
            rawmode = _separate_16_bits(image, tags, refused)
        elif len([kind for kind in tags.get(_EXTRA, ()) if kind]) and len(tags[_EXTRA]) > 1:
            raise refused()
        elif not packed and 1 in tags.get(_EXTRA, ()):
            raise refused()
    if packed and rawmode in _SWAPPED:
        rawmode = _SWAPPED[rawmode]
        (tile,) = image.tile
        image.tile = [tile._replace(args=(rawmode, *tile.args[1:]))]
    if image.mode in ("P", "PA") and max(colours := tags[_COLORMAP]) < 256:
        # By the book these are 16 bits wide; some programs write 8.
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
    inverted = photometric == _WHITE_IS_ZERO and image.mode[0] in "IF"
    return Form(rawmode, inverted, unsigned=image.mode == "I" and form == 1 and bits == 32)


def explain(image: Any, error: Exception) -> Exception:
    """What is behind an error of loading: a decoder that this Pillow lacks, or the file."""
    tags = image.tag_v2
    lacking = "unknown raw mode" in str(error)
    if isinstance(error, OSError) and "decoder error" in str(error):
        lacking = bool(tags.get(_PLANES, 1) == 2 and tags.get(_EXTRA)) or not _has_codec(image.info["compression"])
    return Refused("unsupported", f"this kind of TIFF ({_describe(tags)}) is not supported") if lacking else error


def describe(stream: IO[bytes]) -> str | None:
    """The kind of a TIFF that could not be opened; None if its first directory is damaged."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    stream.seek(0)
    header = stream.read(8)
    if header.startswith(b"MM\0+"):
        return "BigTIFF, big-endian"
    if header[2] == 43:
        header += stream.read(8)
    tags = ImageFileDirectory_v2(header)
    end = stream.seek(0, io.SEEK_END)
    stream.seek(tags.next)
    tags.load(stream)
    starts = tags.get(_STRIPS) or tags.get(_TILES) or ()
    if not starts or max(starts) >= end or not all(isinstance(tags.get(side), int) for side in (256, 257)):
        return None
    if not all(0 < bits <= 64 for bits in tags.get(_BITS, (1,))):
        return None
    if _DNG in tags:
        return "camera raw, DNG"
    return _describe(tags)


def _separate_16_bits(image: Any, tags: Any, refused: Any) -> str:
    """Pillow takes a letter of `RGB;16L` for each plane, and forgets the 16."""
    bands, samples = image.getbands(), tags.get(_SAMPLES, 1)
    if image.mode not in ("RGB", "RGBA") or 1 in tags.get(_EXTRA, ()) or len(image.tile) % samples:
        raise refused()
    order = "L" if tags.prefix == b"II" else "B"
    a_plane = len(image.tile) // samples
    image.tile = [
        tile._replace(args=(f"{bands[k // a_plane]};16{order}", *tile.args[1:]))
        for k, tile in enumerate(image.tile[: a_plane * len(bands)])
    ]
    return f"{image.mode};16{order}"


def _describe(tags: Any) -> str:
    samples = tags.get(_SAMPLES, 1)
    bits, form = tags.get(_BITS, (1,)), max(tags.get(_SAMPLE_FORM, (1,)))
    photometric, compression = tags.get(_PHOTOMETRIC, 0), tags.get(_COMPRESSION, 1)
    words = [
        f"{samples} sample{'s' if samples != 1 else ''} of {'/'.join(str(one) for one in sorted(set(bits)))} bits",
        *([_FORMS.get(form, f"sample format {form}")] if form != 1 else []),
        _COLOURS.get(photometric, f"photometric interpretation {photometric}"),
        *(["separate planes"] if tags.get(_PLANES, 1) == 2 and samples > 1 else []),
        *(["big-endian"] if tags.prefix == b"MM" and max(bits) > 8 else []),
        _COMPRESSIONS.get(compression, f"compression {compression}"),
    ]
    return ", ".join(words)


@functools.cache
def _has_codec(name: str) -> bool:
    """Whether the libtiff of this Pillow unpacks Zstandard, LZMA or WebP, which not every one was built with.

    Told by reading a picture of one pixel: writing one crashes where the codec is missing (Pillow 11.3).
    """
    if name == "zstd":
        number, samples, packed = 50000, 1, b"(\xb5/\xfd \x01\t\0\0\0"
    elif name == "lzma":
        number, samples, packed = 34925, 1, lzma.compress(b"\0")
    elif name == "webp" and features.check("webp"):
        number, samples, file = 50001, 3, io.BytesIO()
        Image.new("RGB", (1, 1)).save(file, "WEBP", lossless=True)
        packed = file.getvalue()
    else:
        return name != "webp"
    photometric = 2 if samples == 3 else 1
    tags = {256: 1, 257: 1, 258: 8, 259: number, 262: photometric, 273: 200, 277: samples, 278: 1, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    try:
        Image.open(io.BytesIO(directory.ljust(200, b"\0") + packed)).load()
    except Exception:
        return False
    return True
