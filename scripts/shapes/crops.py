"""Cutting a picture into crops: the engine's rule, for the crop settings of `shapes`."""

import math

import numpy as np
from PIL import Image

CROP, PATCH, MARGIN, MAX_CROPS = 64, 8, 1, 4
GRID = CROP // PATCH
WINDOW = (GRID - 2 * MARGIN) * PATCH
OVERLAP = 2 * MARGIN * PATCH


def select_tiling(height: int, width: int) -> tuple[int, int]:
    """Return the number of tile rows and columns of a picture of this size."""
    height, width = height - OVERLAP, width - OVERLAP
    if height <= WINDOW or width <= WINDOW:
        return 1, 1
    min_h, min_w = math.ceil(height / WINDOW), math.ceil(width / WINDOW)
    if min_h * min_w > MAX_CROPS:
        ratio = math.sqrt(MAX_CROPS / (min_h * min_w))
        return max(1, math.floor(min_h * ratio)), max(1, math.floor(min_w * ratio))
    rows = max(math.floor(math.sqrt(MAX_CROPS * height / width)), min_h)
    columns = max(math.floor(math.sqrt(MAX_CROPS * width / height)), min_w)
    if rows * columns > MAX_CROPS:
        if columns > rows:
            columns = math.floor(MAX_CROPS / rows)
        else:
            rows = math.floor(MAX_CROPS / columns)
    return max(1, rows), max(1, columns)


def target_size(tiling: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width a picture is resized to for its tiles."""
    return tiling[0] * WINDOW + OVERLAP, tiling[1] * WINDOW + OVERLAP


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize RGB pixels as the engine does."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.LANCZOS))


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
    whole, resized, tiling = shrink(pixels)
    return np.concatenate([whole[None], cut_tiles(resized, tiling)]), tiling
