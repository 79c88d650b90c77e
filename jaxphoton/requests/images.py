"""A picture that was decoded once, to be asked about many times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxphoton.engine.request import ImageInput


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A decoded and cropped image; asking about it again finds its encoding in the engine's prefix cache.

    Attributes:
      image: crops and digest.
      size: (height, width) of the picture in pixels.
      notes: what was done to it on the way (rotated, blended, ...).
      vision: the crop settings it was made for.
    """

    image: ImageInput = field(repr=False)  # a page of pixels
    size: tuple[int, int]
    notes: tuple[str, ...]
    vision: Any
