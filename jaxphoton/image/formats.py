"""Opening a file with Pillow; telling what it is where Pillow does not."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import IO

from PIL import Image

from jaxphoton.image import jpeg, tiff
from jaxphoton.image.errors import Reason, Refused

# EPS would start Ghostscript, and IPTC opens whatever is inside, EPS too; the others are only names here, without a
# decoder.
_REFUSED_FORMATS = {"EPS", "IPTC", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}

_HEIF_BRANDS = rb"hei[cmsx]|hev[cmsx]|heif|mif1|msf1|miaf|MiHB|MiHE"
_HEIF_FILE = re.compile(rb"....ftyp(" + _HEIF_BRANDS + rb")", re.DOTALL)
_HEIF_NEEDS = "HEIC needs pillow-heif: pip install 'jaxphoton[heif]'"

_UNSUPPORTED: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL is not supported"),
    (rb"II\xbc\x01", "JPEG XR is not supported"),
    (
        rb"(II\*\0|MM\0\*)....CR\x02|....ftypcrx|FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|FOVb|\0MRM|II\x1a\0\0\0HEAP",
        "camera raw files are not supported",
    ),
    (rb"P7\n|PF\s", "PAM and PFM in colour are not supported"),
    (rb"v/1\x01|#\?RADIANCE|#\?RGBE", "images of high dynamic range (OpenEXR, Radiance) are not supported"),
    (rb"8BPS\0\x02", "large Photoshop files (PSB) are not supported"),
    (rb"8BPS\0\x01", "this kind of Photoshop file is not supported"),
    (rb"\x8a(MNG)|\x8b(JNG)", "MNG and JNG are not supported"),
    (rb".{128}DICM", "DICOM is not supported"),
    (rb"gimp xcf", "GIMP files (XCF) are not supported"),
    (rb"AT&TFORM", "DjVu is not supported"),
    (rb"BPG\xfb|FLIF", "BPG and FLIF are not supported"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript is not supported"),
    (rb"\s*%PDF", "PDF is not supported"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "WMF and EMF drawings are not supported"),
    (
        rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*|<!doctype svg[^>]*>\s*)*<svg",
        "SVG drawings are not supported",
    ),
)
_OTHERS: tuple[tuple[Reason, bytes, str], ...] = (
    ("corrupt",
     rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|RIFF....WEBP|II[*+]\0|MM\0[*+]|....ftyp(avif|avis|" + _HEIF_BRANDS + rb")"
     rb"|8BPS|\0\0\0\x0cjP  |\xff\x4f\xff\x51|qoif|DDS |icns",
     "the image header is damaged or incomplete"),
    ("not-an-image", rb"(\xef\xbb\xbf)?\s*<(!doctype html|html)", "a web page (HTML), not an image"),
    ("not-an-image", rb"....(ftyp|moov|mdat)|RIFF....AVI |\x1aE\xdf\xa3|FLV\x01", "a video, not an image"),
    ("not-an-image", rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|.{257}ustar", "an archive, not an image"),
)  # fmt: skip

_register_lock = threading.Lock()


def open_image(stream: IO[bytes]) -> Image.Image:
    """Opens a seekable file, whatever it is called; no pixel is decoded yet.

    Raises:
      Refused: it is of a known kind that is not supported.
      Exception: anything else that Pillow raises.
    """
    stream.seek(0)
    head = stream.read(12)
    Image.init()
    if _HEIF_FILE.match(head) and "HEIF" not in Image.ID:
        _register_heif()
    stream.seek(0)
    try:
        return Image.open(stream, formats=[form for form in Image.ID if form not in _REFUSED_FORMATS])
    except Image.DecompressionBombError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if fault := _unsupported(stream):
            raise Refused("unsupported", fault) from error
        raise


def identify(head: bytes) -> tuple[Reason, str] | None:
    """What the first bytes (300 or so) tell about a file that nobody could open."""
    for reason, pattern, fault in _OTHERS:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            return reason, fault
    return None


def _register_heif() -> None:
    with contextlib.suppress(ImportError), _register_lock:
        import pillow_heif

        pillow_heif.register_heif_opener()


def _unsupported(stream: IO[bytes]) -> str | None:
    """The name of the kind of a file that could not be opened, if it is whole as far as one can tell."""
    stream.seek(0)
    head = stream.read(300)
    for pattern, fault in _UNSUPPORTED:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            return fault
    if _HEIF_FILE.match(head) and "HEIF" not in Image.ID and not _brands(head) & {b"avif", b"avis"}:
        return _HEIF_NEEDS
    with contextlib.suppress(Exception):  # a header that is damaged, after all
        if head.startswith(b"\xff\xd8\xff") and (kind := jpeg.unusual_kind(stream)):
            return f"{kind} is not supported"
        if re.match(rb"II[*+]\0|MM\0[*+]", head) and (kind := tiff.describe(stream)):
            return f"this kind of TIFF ({kind}) is not supported"
    return None


def _brands(head: bytes) -> set[bytes]:
    size = int.from_bytes(head[:4], "big")
    return {head[k : k + 4] for k in (8, *range(16, min(size, len(head)), 4))}
