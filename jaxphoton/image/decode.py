"""Any image file, bytes, Pillow picture or array -> upright 8-bit RGB pixels, or one clear error."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import IO, Any

import numpy as np
from PIL import Image

from jaxphoton.image.colour import ARRAY_FORMS, array_to_image
from jaxphoton.image.errors import REASONS, ImageError, cannot_read
from jaxphoton.image.formats import identify
from jaxphoton.image.pillow import MAX_PIXELS, Rules, read_picture
from jaxphoton.messages import quoted

__all__ = ["MAX_PIXELS", "REASONS", "Decoded", "ImageError", "decode"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright picture.

    Attributes:
      picture: loaded, of mode RGB; the one that was given, where that needed nothing. Not to be changed.
      size: (height, width) of the whole, which `picture` may be a smaller copy of.
      notes: what was changed on the way ("rotated by EXIF orientation 6", "first of 12 frames"), for reports.
    """

    picture: Image.Image
    size: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [height, width, 3], RGB: a copy, read-only."""
        return np.asarray(self.picture)


def decode(
    source: Any,
    *,
    max_pixels: int = MAX_PIXELS,
    background: tuple[int, int, int] = (255, 255, 255),
    allow_truncated: bool = False,
    needed: Callable[[int, int], tuple[int, int]] | None = None,
    name: str | None = None,
) -> Decoded:
    """Decodes one picture: first frame, upright by its EXIF orientation, transparency blended, 8-bit RGB.

    Args:
      source: a path; the bytes of a file; a binary file object (read from its start, left open); a
        `PIL.Image.Image`; or an array (uint8, uint16, bool, or float from 0 to 1) in [height, width] or
        [height, width, channels] with 1 (grey), 3 (RGB) or 4 (RGBA) channels.
      max_pixels: larger pictures are refused, files before any pixel is decoded.
      background: RGB colour (0 to 255 each) behind transparent pixels.
      allow_truncated: keep what a file cut short still shows (the rest is black or grey) instead of failing.
        WebP, AVIF and JPEG 2000 decode as a whole or not at all.
      needed: from (height, width) of a picture to those that are enough: a JPEG may then be decoded at 1/2, 1/4 or 1/8
        of its size, not below what is needed.
      name: the name shown in errors; by default the path.

    Raises:
      ImageError: the picture cannot be used; its `reason` says why.
      TypeError, ValueError: `source`, `max_pixels` or `background` is of a kind that is not listed above.
    """
    check_rules(max_pixels, background)
    red, green, blue = background
    rules = Rules(name or _name(source), max_pixels, (red, green, blue), allow_truncated, needed)
    if isinstance(source, Image.Image):
        return _decoded(source, rules)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode_stream(io.BytesIO(source), rules)
    if isinstance(source, (str, os.PathLike)):
        return _decode_path(source, rules)
    if hasattr(source, "__array__"):
        image, notes = array_to_image(np.asarray(source))
        return _decoded(image, rules, notes)
    if hasattr(source, "read"):
        return _decode_stream(source, rules)
    raise TypeError(
        f"expected a path, bytes, a binary file object, a PIL image or an array, not {type(source).__name__}; "
        f"arrays may be {ARRAY_FORMS}"
    )


def check_rules(max_pixels: Any, background: Any) -> None:
    """Raises TypeError or ValueError for rules that are none; they are no picture's fault."""
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, Integral):
        raise TypeError(f"max_pixels must be an integer, not {quoted(max_pixels)}")
    if max_pixels < 1:
        raise ValueError(f"max_pixels must be at least 1, not {max_pixels}")
    parts = tuple(background) if isinstance(background, (tuple, list)) else ()
    whole = all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255 for part in parts)
    if len(parts) != 3 or not whole:
        raise ValueError(f"background must be three integers from 0 to 255, not {quoted(background)}")


def _name(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    for attribute in ("filename", "name"):
        if isinstance(value := getattr(source, attribute, None), str) and value:
            return value
    return "<file>" if hasattr(source, "read") else "<image>"


def _decoded(source: IO[bytes] | Image.Image, rules: Rules, notes: list[str] | None = None) -> Decoded:
    picture, size, more = read_picture(source, rules)
    return Decoded(picture, size, (*(notes or ()), *more))


def _decode_path(path: str | os.PathLike, rules: Rules) -> Decoded:
    try:
        file = open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(rules.name, "not-found", "no such file") from None
    except OSError as error:
        raise ImageError(rules.name, "unreadable", cannot_read(error)) from error
    except ValueError as error:
        raise ImageError(rules.name, "not-found", f"not a file name: {error}") from error
    with file:
        return _decode_stream(file, rules)


def _decode_stream(stream: IO[bytes], rules: Rules) -> Decoded:
    try:
        head, stream = _head(stream)
    except (OSError, ValueError) as error:
        raise ImageError(rules.name, "unreadable", cannot_read(error)) from error
    if not head:
        raise ImageError(rules.name, "empty", "the file is empty")
    try:
        return _decoded(stream, rules)
    except ImageError as error:
        if error.reason == "not-an-image" and (known := identify(head)):
            raise ImageError(rules.name, *known) from error
        raise


def _head(stream: IO[bytes]) -> tuple[bytes, IO[bytes]]:
    """The first bytes, and the file in a form that can be read from the start again."""
    if hasattr(stream, "seekable") and stream.seekable():
        stream.seek(0)
        head = stream.read(300)
    else:
        head = stream.read()
    if not isinstance(head, bytes):
        raise TypeError(f"expected a file object opened in binary mode, but it reads {type(head).__name__}")
    if hasattr(stream, "seekable") and stream.seekable():
        return head, stream
    return head, io.BytesIO(head)
