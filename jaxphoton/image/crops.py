"""The crops of one picture, and the resize they are made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

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


class Pictures(Protocol):
    """How a family makes pictures ready for its vision encoder: plain settings, equal where they make the same crops.

    A class of a module that imports no jax: image workers make it again from its settings.
    """

    def settings(self) -> dict[str, Any]:
        """What `from_settings` takes, as JSON has it."""
        ...

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Pictures: ...

    def needed_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) up to which pixels of a picture of this size matter."""
        ...

    def count(self, height: int, width: int) -> int:
        """Crops of a picture of this size."""
        ...

    def prepare(self, pixels: np.ndarray, size: tuple[int, int] | None = None) -> Crops:
        """Crops of an RGB picture, uint8 [height, width, 3]; `size` is its own where `pixels` are a smaller copy.

        Raises:
          ValueError: an empty picture, or one of another shape or dtype.
        """
        ...


def told(pictures: Pictures) -> dict[str, Any]:
    """For `told_again` in another process that finds the same modules."""
    kind = type(pictures)
    return {"module": kind.__module__, "name": kind.__qualname__, "settings": pictures.settings()}


def told_again(message: Mapping[str, Any]) -> Pictures:
    """The pictures that `told` has told of."""
    return getattr(import_module(message["module"]), message["name"]).from_settings(message["settings"])


def resize(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3] of an RGB picture: Pillow LANCZOS, width first, the same pixels on every release."""
    # Each pass rounds and clips to 8 bits, so their order shows in the pixels, and Pillow 13 chooses it by the shape.
    # Width first is what earlier releases did with nearly every picture.
    between = (width, picture.height)
    if width * picture.height > _MAX_BETWEEN:
        between = (picture.width, height)
    once = picture.resize(between, Image.Resampling.LANCZOS)
    return np.asarray(once.resize((width, height), Image.Resampling.LANCZOS))
