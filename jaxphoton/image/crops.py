"""The crops of one picture, and who cuts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from PIL import Image

from jaxphoton.image.ways import Resize


@dataclass(frozen=True, slots=True)
class Crops:
    """The crops of one picture.

    Attributes:
      pixels: uint8 [C, crop, crop, 3], in the order of the family (Moondream: the global crop, then the tiles; of a
        single tile the global crop alone, which is that tile).
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

    def prepare(self, picture: Image.Image, size: tuple[int, int] | None = None, resize: Resize = "exact") -> Crops:
        """Crops of a loaded picture of mode RGB, which is not changed.

        Args:
          size: (height, width) of the whole where `picture` is a smaller copy of it.
          resize: how pixels are resized.

        Raises:
          ValueError: a picture without pixels, or of another mode.
        """
        ...


def told(pictures: Pictures) -> dict[str, Any]:
    """For `told_again` in another process that finds the same modules."""
    kind = type(pictures)
    return {"module": kind.__module__, "name": kind.__qualname__, "settings": pictures.settings()}


def told_again(message: Mapping[str, Any]) -> Pictures:
    """The pictures that `told` has told of."""
    return getattr(import_module(message["module"]), message["name"]).from_settings(message["settings"])
