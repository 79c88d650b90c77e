"""Packs the crops of several pictures into the arrays of one vision launch."""

from __future__ import annotations

import numpy as np

from jaxphoton.image.crops import Crops
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.pooling import pooling_matrices


def pack_crops(pictures: list[Crops], crops: int, config: ModelConfig) -> tuple[np.ndarray, ...]:
    """Pixels, pooling rows and columns, and owner of the crops of several pictures, padded to `crops`."""
    packed, start = empty_crops(crops, config), 0
    for index, picture in enumerate(pictures):
        start = add_crops(packed, start, index, picture, config)
    return packed


def empty_crops(crops: int, config: ModelConfig) -> tuple[np.ndarray, ...]:
    """What `pack_crops` returns, of no picture."""
    size, grid = config.vision.crop_size, config.vision.grid
    pixels = np.zeros((crops, size, size, 3), np.uint8)
    rows, columns = (np.zeros((crops, grid, grid), np.float32) for _ in range(2))
    return pixels, rows, columns, np.full(crops, -1, np.int32)


def add_crops(packed: tuple[np.ndarray, ...], start: int, index: int, picture: Crops, config: ModelConfig) -> int:
    """Adds the crops of picture number `index` behind `start` others; returns how many there are now.

    Raises:
      ValueError: they are not uint8 crops of this model, one and those of the tiling.
    """
    pixels, rows, columns, owner = packed
    shape = (1 + picture.tiling[0] * picture.tiling[1], *pixels.shape[1:])
    # Checked because NumPy would stretch or cast what nearly fits.
    if picture.pixels.shape != shape or picture.pixels.dtype != np.uint8:
        found = f"{picture.pixels.dtype} {list(picture.pixels.shape)}"
        raise ValueError(f"crops of the tiling {picture.tiling} must be uint8 {list(shape)}, not {found}")
    stop = start + len(picture.pixels)
    pixels[start:stop] = picture.pixels
    rows[start:stop], columns[start:stop] = pooling_matrices(picture.tiling, config.vision)
    owner[start:stop] = 2 * index + 1
    owner[start] = 2 * index
    return stop
