"""Cutting a picture into crops: the engine's rule, for the crop settings of `shapes`."""

import numpy as np
from PIL import Image

from jaxphoton.image.resize import resize as exact_resize
from jaxphoton.models.moondream import pictures
from jaxphoton.models.moondream.config import VisionConfig

CROP, PATCH, MARGIN, MAX_CROPS = 64, 8, 1, 4
GRID = CROP // PATCH
WINDOW = (GRID - 2 * MARGIN) * PATCH
OVERLAP = 2 * MARGIN * PATCH


SETTINGS = VisionConfig(crop_size=CROP, enc_patch_size=PATCH, overlap_margin=MARGIN, max_crops=MAX_CROPS)


def select_tiling(height: int, width: int) -> tuple[int, int]:
    """Return the number of tile rows and columns of a picture of this size."""
    return pictures.select_tiling(height, width, SETTINGS)


def target_size(tiling: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width a picture is resized to for its tiles."""
    return tiling[0] * WINDOW + OVERLAP, tiling[1] * WINDOW + OVERLAP


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
