"""RGB picture -> the frames that the vision encoder reads: tiles in row-major order, then the whole picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from jaxphoton.image.crops import Crops
from jaxphoton.image.resize import resize as resized
from jaxphoton.image.ways import Resize
from jaxphoton.models.smolvlm.config import MOST_PIXELS

UNSPLIT = (0, 0)  # the tiling of a picture that is one frame


@dataclass(frozen=True, slots=True)
class SmolVLMPictures:
    """`image.crops.Pictures` of one model.

    Three resizes in a row, each rounded to 8 bits, because the models were trained on what the three of them give: the
    long side to `longest_edge`, up or down; both sides up to multiples of `tile`; and that picture down to one tile,
    which is the global frame. Without splitting it is the first, and then a square of one tile.

    Attributes:
      tile: side of a frame, in pixels.
      longest_edge: of a picture before it is cut.
      splitting: whether there are tiles beside the global frame.
    """

    tile: int
    longest_edge: int
    splitting: bool = True

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> SmolVLMPictures:
        return cls(**settings)

    def needed_size(self, height: int, width: int) -> tuple[int, int]:
        """Of the first resize, behind which nothing sees the picture itself."""
        ratio, most = width / height, self.longest_edge
        # What comes out a pixel different would be other tiles now and then: the operations are those of the reference.
        if width >= height:
            height, width = _even(int(most / ratio)), most
        else:
            height, width = most, _even(int(most * ratio))
        if max(height, width) > MOST_PIXELS:
            ratio = width / height
            height, width = (
                (int(MOST_PIXELS / ratio), MOST_PIXELS) if width >= height else (MOST_PIXELS, int(MOST_PIXELS * ratio))
            )
        return max(height, 1), max(width, 1)

    def tiling(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tiles of a picture of this size; UNSPLIT for a single frame."""
        if not self.splitting:
            return UNSPLIT
        height, width = self.needed_size(height, width)
        ratio, tile = width / height, self.tile
        if width >= height:
            columns = math.ceil(width / tile)
            rows = math.ceil(int(columns * tile / ratio) / tile)
        else:
            rows = math.ceil(height / tile)
            columns = math.ceil(int(rows * tile * ratio) / tile)
        rows, columns = max(rows, 1), max(columns, 1)
        return UNSPLIT if rows == columns == 1 else (rows, columns)

    def count(self, height: int, width: int) -> int:
        return frame_count(self.tiling(height, width))

    def prepare(self, picture: Image.Image, size: tuple[int, int] | None = None, resize: Resize = "exact") -> Crops:
        if picture.mode != "RGB" or 0 in picture.size:
            raise ValueError(
                f"expected a picture of mode RGB, got {picture.mode} of {picture.width} x {picture.height} pixels"
            )
        size, tile = size or (picture.height, picture.width), self.tile
        rows, columns = tiling = self.tiling(*size)
        picture = Image.fromarray(resized(picture, *self.needed_size(*size), resize))
        if tiling == UNSPLIT:
            return Crops(resized(picture, tile, tile, resize)[None], tiling)
        whole = resized(picture, rows * tile, columns * tile, resize)
        frames = np.empty((frame_count(tiling), tile, tile, 3), np.uint8)
        tiles = whole.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2)
        frames[:-1] = tiles.reshape(rows * columns, tile, tile, 3)
        frames[-1] = resized(Image.fromarray(whole), tile, tile, resize)
        return Crops(frames, tiling)


def frame_count(tiling: tuple[int, int]) -> int:
    """Frames of a picture: its tiles and the global one."""
    rows, columns = tiling
    return rows * columns + 1


def _even(length: int) -> int:
    return length + length % 2
