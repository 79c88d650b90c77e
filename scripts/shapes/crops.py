"""Cutting a picture into crops, as the engine does."""

import numpy as np
from PIL import Image

from jaxphoton.image.resize import resize as exact_resize
from jaxphoton.measure.shapes.tiling import CROP, SETTINGS, WINDOW, select_tiling, target_size
from jaxphoton.models.moondream import pictures


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize RGB pixels as the engine does."""
    return exact_resize(Image.fromarray(pixels), height, width)


def shrink(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return the global crop, the resized picture the tiles are cut from, and the tiling."""
    tiling = select_tiling(*pixels.shape[:2])
    return resize(pixels, CROP, CROP), resize(pixels, *target_size(tiling)), tiling


def cut_tiles(resized: np.ndarray, tiling: tuple[int, int]) -> np.ndarray:
    """Cut resized pictures [..., height, width, 3] into tiles [..., tiles, crop, crop, 3]."""
    tiles = [
        resized[..., WINDOW * i : WINDOW * i + CROP, WINDOW * j : WINDOW * j + CROP, :]
        for i in range(tiling[0])
        for j in range(tiling[1])
    ]
    return np.stack(tiles, axis=-4)


def make_crops(pixels: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Return all crops of a picture, the global one first, and the tiling."""
    cut = pictures.cut_crops(pixels, SETTINGS)
    return cut.pixels, cut.tiling
