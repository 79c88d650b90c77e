"""Reading a picture through Pillow: its limits, warnings, truncation, orientation and frames tamed.

Pillow keeps three switches as globals of the process (pixel limit, warnings, truncated files). Pictures are
decoded in threads too, and the program around us may use Pillow itself, so none of them is left changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, cast

from PIL import Image

from jaxphoton.image import fits, jpeg, jpeg2000, png, tiff
from jaxphoton.image.colour import Form, to_rgb
from jaxphoton.image.errors import ImageError, diagnose, over_limit
from jaxphoton.image.formats import open_image

# The size at which Pillow itself refuses a file by default.
MAX_PIXELS = 178_956_970

# Frames of these are other renderings of one picture (previews, gain maps, layers), not a sequence.
_SINGLE_PICTURE_FORMATS = {"MPO", "PSD", "ICO", "ICNS", "HEIF"}

# Counting the frames of others may decode the next one over the first. None is a picture that was in no file.
_KEPT_FORMATS = {*jpeg.FORMATS, "PNG", "WEBP", None}

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)
_limit_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Rules:
    """How to read one picture; the fields are the arguments of `decode`."""

    name: str
    max_pixels: int
    background: tuple[int, int, int]
    allow_truncated: bool
    needed: Callable[[int, int], tuple[int, int]] | None = None


Picture = tuple[Image.Image, tuple[int, int], list[str]]


def read_picture(source: IO[bytes] | Image.Image, rules: Rules) -> Picture:
    """The upright picture in mode RGB, the whole (height, width) and notes of a seekable file or a picture.

    Raises:
      ImageError: whatever goes wrong.
    """
    try:
        with _pillow_warnings_off():
            try:
                return _read(source, rules)
            except Image.DecompressionBombError:
                if rules.max_pixels <= MAX_PIXELS:
                    raise
                # Raised only for pictures that need it, and by one thread at a time.
                with _limit_lock, _pillow_limit(rules.max_pixels):
                    return _read(source, rules)
    except ImageError:
        raise
    except Exception as error:  # broken files make Pillow raise nearly anything
        raise ImageError(rules.name, *diagnose(error, rules.max_pixels)) from error


def _read(source: IO[bytes] | Image.Image, rules: Rules) -> Picture:
    stream, more = (None, []) if isinstance(source, Image.Image) else _pixels_of(source, rules)
    image = source if isinstance(source, Image.Image) else open_image(cast("IO[bytes]", stream))
    _check_size(image, rules)
    form = _form(image, stream)
    # Pillow turns TIFF upright on its own while loading, and forgets the tag.
    turned = orientation_of(image) if image.format == "TIFF" else 1
    whole = jpeg.reduce(image, rules.needed, orientation_of(image) >= 5) if stream and rules.needed else None
    image, notes = _load(image, stream, rules)
    _check_size(image, rules)
    if image.format == "PNG" and stream and form.rawmode == "RGB;16B":
        form = dataclasses.replace(form, transparent=png.transparent_16_bits(image, stream))
    rgb, colour_notes = to_rgb(image, form, rules.background)
    orientation = orientation_of(image)
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    if max(orientation, turned) in _TRANSPOSE:
        notes.append(f"rotated by EXIF orientation {max(orientation, turned)}")
    if rgb is image and image.format not in _KEPT_FORMATS:
        rgb = image.copy()
    return rgb, whole or (rgb.height, rgb.width), [*colour_notes, *notes, *more, *_frame_notes(image)]


def _pixels_of(stream: IO[bytes], rules: Rules) -> tuple[IO[bytes], list[str]]:
    """The file, without what costs time or even the picture and is not needed; and notes."""
    stream.seek(0)
    if stream.read(len(png.SIGNATURE)) == png.SIGNATURE:
        return png.without_metadata(stream, rules.allow_truncated)
    return stream, []


def _form(image: Image.Image, stream: IO[bytes] | None) -> Form:
    if hasattr(image, "tag_v2") and image.format == "TIFF":
        return tiff.adapt(image)
    if image.format == "JPEG2000" and stream:
        jpeg2000.check(image, stream)
    if image.format == "FITS" and stream:
        return fits.adapt(image, stream)
    tiles = getattr(image, "tile", None)
    rawmode = re.search(r"\w+;\d+\w*", str(tiles[0][3])) if tiles else None
    return Form(rawmode.group() if rawmode else "")


def _check_size(image: Image.Image, rules: Rules) -> None:
    width, height = image.size
    if width * height > rules.max_pixels:
        raise ImageError(rules.name, "too-large", f"{width} x {height} pixels, {over_limit(rules.max_pixels)}")
    if not width or not height:
        raise ImageError(rules.name, "empty", "the picture has no pixels")


def _load(image: Image.Image, stream: IO[bytes] | None, rules: Rules) -> tuple[Image.Image, list[str]]:
    """Decodes the pixels; where the rules allow, as many as a truncated file has."""
    try:
        image.load()
        if image.format == "ICNS" and image.mode == "P":  # its palette stays with the picture inside
            image = cast("Any", image).icns.getimage(cast("Any", image).best_size)
        return image, []
    except Exception as error:
        if image.format == "TIFF" and (better := tiff.explain(image, error)) is not error:
            raise better from error
        if not rules.allow_truncated or diagnose(error, rules.max_pixels)[0] != "truncated":
            raise
        if image.format in jpeg.FORMATS and stream is not None:
            # With an end marker libjpeg fills in what is missing: a progressive file shows its coarse picture.
            stream.seek(0)
            image = open_image(io.BytesIO(stream.read() + b"\xff\xd9"))
        elif getattr(image, "_im", None) is not None:
            # Pillow's switch for truncated files is global. But a failed load leaves the rows it had in place,
            # and a picture without tiles counts as loaded.
            image.tile = []  # type: ignore[attr-defined]
        else:
            raise
        image.load()
        return image, ["truncated file"]


def orientation_of(image: Image.Image) -> int:
    """By its EXIF: 1 is upright, from 5 on height and width change places."""
    # The picture is worth having even where its EXIF block is broken.
    if image.format == "HEIF":
        return 1  # libheif turned it already, by what the container says
    with contextlib.suppress(Exception):
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    return 1


def _frame_notes(image: Image.Image) -> list[str]:
    with contextlib.suppress(Exception):
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in _SINGLE_PICTURE_FORMATS:
            return [f"first of {frames} frames"]
    return []


@contextlib.contextmanager
def _pillow_limit(pixels: int):
    saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = saved


@contextlib.contextmanager
def _pillow_warnings_off():
    """Silences what Pillow says about odd files.

    `warnings.catch_warnings` restores a snapshot on leaving, which overlapping threads restore out of order;
    one entry put in and taken out of the same list disturbs nobody.
    """
    filters = cast("list[Any]", warnings.filters)
    filters.insert(0, _PILLOW_FILTER)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            filters.remove(_PILLOW_FILTER)
