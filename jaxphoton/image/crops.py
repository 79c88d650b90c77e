"""The crops of one picture, and the resize they are made with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

# A picture one pixel wide and millions high is not widened before it is made lower: pixels, of 4 bytes each.
_MAX_BETWEEN = 1 << 27


@dataclass(frozen=True, slots=True)
class Crops:
    """The crops of one picture.

    Attributes:
      pixels: uint8 [C, crop, crop, 3], in the order of the family (Moondream: the global crop, then the tiles).
      tiling: (rows, columns) of local tiles, in row-major order.
    """

    pixels: np.ndarray
    tiling: tuple[int, int]


def resize(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3] of an RGB picture: Pillow LANCZOS, width first, the same pixels on every release."""
    # Each pass rounds and clips to 8 bits, so their order shows in the pixels, and Pillow 13 chooses it by the shape.
    # Width first is what earlier releases did with nearly every picture.
    between = (width, picture.height)
    if width * picture.height > _MAX_BETWEEN:
        between = (picture.width, height)
    once = picture.resize(between, Image.Resampling.LANCZOS)
    return np.asarray(once.resize((width, height), Image.Resampling.LANCZOS))
