"""One picture from any source to what the engine takes: the one function of this process and of the image workers."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxphoton.image.crops import Crops, Pictures
from jaxphoton.image.decode import MAX_PIXELS, decode

__all__ = ["MAX_PIXELS", "Prepared", "prepare"]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A picture ready for the vision encoder.

    Attributes:
      crops: its crops; the pixels are owned by this object.
      digest: 32 bytes that are the same for, and only for, pictures of the same size and upright RGB pixels.
      size: (height, width) of the upright picture.
      notes: what was changed on the way, for reports (see `Decoded`).
      began: `time.monotonic()` when decoding began.
      seconds: what decoding and cropping took.
      worker: number of the worker that did it; None for this process.
    """

    crops: Crops
    digest: bytes
    size: tuple[int, int]
    notes: tuple[str, ...] = ()
    began: float = 0.0
    seconds: float = 0.0
    worker: int | None = None


def prepare(
    source: Any,
    pictures: Pictures,
    *,
    max_pixels: int = MAX_PIXELS,
    background: tuple[int, int, int] = (255, 255, 255),
    allow_truncated: bool = False,
    fast: bool = False,
    name: str | None = None,
) -> Prepared:
    """Decodes a picture and cuts its crops; the arguments besides `pictures` and `fast` are those of `decode`.

    With `fast`, a JPEG much larger than its crops is decoded at a half, a quarter or an eighth of its size: pixels
    differ a little, on average by less than one part in 255.

    Raises:
      ImageError: the picture cannot be used; its `reason` says why.
      TypeError, ValueError: `source` or `background` is of a kind that `decode` does not take.
    """
    began = time.monotonic()
    decoded = decode(
        source,
        max_pixels=max_pixels,
        background=background,
        allow_truncated=allow_truncated,
        needed=pictures.needed_size if fast else None,
        name=name,
    )
    crops, digest = pictures.prepare(decoded.pixels, decoded.size), _digest(decoded.pixels, decoded.size)
    return Prepared(crops, digest, decoded.size, decoded.notes, began, time.monotonic() - began)


def _digest(pixels: np.ndarray, size: tuple[int, int]) -> bytes:
    # The shape too: 2 x 3 and 3 x 2 pixels may be the same bytes; and what they are a smaller copy of.
    reduced = () if size == pixels.shape[:2] else size
    digest = hashlib.sha256(np.array((*pixels.shape, *reduced), "<i8").tobytes())
    digest.update(np.ascontiguousarray(pixels).data.cast("B"))
    return digest.digest()
