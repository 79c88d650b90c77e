"""One picture from any source to what the engine takes: the one function of this process and of the image workers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3

from jaxphoton.image.crops import Crops, Pictures
from jaxphoton.image.decode import MAX_PIXELS, decode
from jaxphoton.image.ways import Resize

__all__ = ["MAX_PIXELS", "Prepared", "prepare"]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A picture ready for the vision encoder.

    Attributes:
      crops: its crops; the pixels are owned by this object.
      digest: 32 bytes that are the same for, and only for, the same crops: what the network sees.
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
    resize: Resize = "exact",
    name: str | None = None,
) -> Prepared:
    """Decodes a picture and cuts its crops; the arguments besides these are those of `decode`.

    Args:
      pictures: what crops are cut.
      fast: decode a JPEG much larger than its crops at a half, a quarter or an eighth of its size: pixels differ a
        little, on average by less than one part in 255.
      resize: how pixels are resized.

    Raises:
      ImageError: the picture cannot be used; its `reason` says why.
      TypeError, ValueError: `source` or `background` is of a kind that `decode` does not take, or `resize` cannot be
        had here.
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
    crops = pictures.prepare(decoded.picture, decoded.size, resize)
    return Prepared(crops, digest_of(crops), decoded.size, decoded.notes, began, time.monotonic() - began)


def digest_of(crops: Crops) -> bytes:
    """See `Prepared`."""
    # The shape too: tiles in a row or in a column may be the same bytes.
    digest = blake3(np.array((*crops.tiling, *crops.pixels.shape), "<i8").tobytes())
    digest.update(np.ascontiguousarray(crops.pixels).data.cast("B"))
    return digest.digest()
