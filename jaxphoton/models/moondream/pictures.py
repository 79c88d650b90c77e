"""RGB picture -> one global crop and a grid of overlapping local crops; and several pictures packed for one launch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from jaxphoton.image.crops import Crops
from jaxphoton.image.resize import resize
from jaxphoton.image.ways import Resize
from jaxphoton.models.moondream.config import VisionConfig
from jaxphoton.models.moondream.pooling import pooling_matrices
from jaxphoton.models.protocol import Guard


@dataclass(frozen=True, slots=True)
class MoondreamPictures:
    """`protocol.Pictures` of one model."""

    vision: VisionConfig

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self.vision)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> MoondreamPictures:
        return cls(VisionConfig(**settings))

    def needed_size(self, height: int, width: int) -> tuple[int, int]:
        return needed_size(height, width, self.vision)

    def count(self, height: int, width: int) -> int:
        return crop_count(select_tiling(height, width, self.vision))

    def prepare(self, picture: Image.Image, size: tuple[int, int] | None = None, resize: Resize = "exact") -> Crops:
        return cut_crops(picture, self.vision, size, resize)


def select_tiling(height: int, width: int, config: VisionConfig) -> tuple[int, int]:
    """Rows and columns of local tiles for a picture of `height` x `width` pixels.

    The rule of the upstream models: as many tiles as `max_crops` allows while the picture's shape is
    roughly kept, (1, 1) when one side fits into a single window. Both results are at least 1.
    """
    window, margin = _window(config)
    most = config.max_crops
    height, width = max(1, height - 2 * margin), max(1, width - 2 * margin)
    if height <= window or width <= window:
        return 1, 1
    rows_needed, columns_needed = math.ceil(height / window), math.ceil(width / window)
    if rows_needed * columns_needed > most:
        ratio = math.sqrt(most / (rows_needed * columns_needed))
        # Upstream lifts a side that rounds to 0 without shortening the other: `most` keeps very long pictures bounded.
        rows, columns = (max(1, math.floor(needed * ratio)) for needed in (rows_needed, columns_needed))
        return min(rows, most), min(columns, most)
    rows = max(math.floor(math.sqrt(most * height / width)), rows_needed)
    columns = max(math.floor(math.sqrt(most * width / height)), columns_needed)
    if rows * columns > most:
        if columns > rows:
            columns = math.floor(most / rows)
        else:
            rows = math.floor(most / columns)
    return max(1, rows), max(1, columns)


def crop_count(tiling: tuple[int, int]) -> int:
    """Crops of a picture: the global one and the tiles. A single tile is the global crop again and no crop of its own:
    both are the whole picture, resized to the size of a crop."""
    rows, columns = tiling
    return 1 if rows * columns == 1 else 1 + rows * columns


def needed_size(height: int, width: int, config: VisionConfig) -> tuple[int, int]:
    """(height, width) that a picture of `height` x `width` pixels is resized to before it is cut."""
    window, margin = _window(config)
    rows, columns = select_tiling(height, width, config)
    return rows * window + 2 * margin, columns * window + 2 * margin


def cut_crops(
    image: np.ndarray | Image.Image,
    config: VisionConfig,
    size: tuple[int, int] | None = None,
    how: Resize = "exact",
) -> Crops:
    """Cuts an RGB picture (uint8 [height, width, 3], or of Pillow) into crops.

    `size` is (height, width) of the picture, where `image` is a smaller copy of it; `how` it is resized.

    The picture is resized (aspect ratio not kept, LANCZOS, width first) to cover the tile grid exactly; the global crop
    is a resize of the original picture of its own, and a single tile that same crop (see `crop_count`).

    Raises:
      ValueError: no pixels, or others.
    """
    picture = image if isinstance(image, Image.Image) else _picture(image)
    if picture.mode != "RGB" or 0 in picture.size:
        raise ValueError(
            f"expected a picture of mode RGB, got {picture.mode} of {picture.width} x {picture.height} pixels"
        )
    window, _ = _window(config)
    crop = config.crop_size
    height, width = size or (picture.height, picture.width)
    tiling = rows, columns = select_tiling(height, width, config)
    pixels = np.empty((crop_count(tiling), crop, crop, 3), np.uint8)
    pixels[0] = resize(picture, crop, crop, how)
    if len(pixels) > 1:
        resized = resize(picture, *needed_size(height, width, config), how)
        for tile in range(rows * columns):
            top, left = tile // columns * window, tile % columns * window
            pixels[1 + tile] = resized[top : top + crop, left : left + crop]
    return Crops(pixels, tiling)


def _picture(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"expected uint8 pixels [height, width, 3], got {pixels.dtype} {list(pixels.shape)}")
    return Image.fromarray(pixels)


def _window(config: VisionConfig) -> tuple[int, int]:
    """The step between tiles and the margin kept on each side, in pixels."""
    margin = config.overlap_margin * config.enc_patch_size
    return config.crop_size - 2 * margin, margin


def crop_owners(crops: int, picture: int = 0) -> np.ndarray:
    """int32 [crops, 2] of the crops of a picture: its number in the first column of its global crop, and in the second
    one of its tiles; else -1."""
    owner = np.full((crops, 2), -1, np.int32)
    owner[0, 0] = owner[min(1, crops - 1) :, 1] = picture
    return owner


def pack_crops(pictures: Sequence[Crops], crops: int, config: VisionConfig, guard: Guard) -> tuple[np.ndarray, ...]:
    """Pixels, pooling rows and columns, and owner of the crops of several pictures, padded to `crops`.

    The owner is int32 [crops, 2], see `crop_owners`; -1 in padding.

    Raises (inside `guard`):
      ValueError: a picture's crops are not uint8 crops of this model, as many as its tiling has.
    """
    size, grid = config.crop_size, config.grid
    pixels = np.zeros((crops, size, size, 3), np.uint8)
    rows, columns = (np.zeros((crops, grid, grid), np.float32) for _ in range(2))
    owner, start = np.full((crops, 2), -1, np.int32), 0
    for index, picture in enumerate(pictures):
        with guard(index):
            shape = (crop_count(picture.tiling), size, size, 3)
            # Checked because NumPy would stretch or cast what nearly fits.
            if picture.pixels.shape != shape or picture.pixels.dtype != np.uint8:
                found = f"{picture.pixels.dtype} {list(picture.pixels.shape)}"
                raise ValueError(f"crops of the tiling {picture.tiling} must be uint8 {list(shape)}, not {found}")
            stop = start + len(picture.pixels)
            pixels[start:stop] = picture.pixels
            rows[start:stop], columns[start:stop] = pooling_matrices(picture.tiling, config)
            owner[start:stop] = crop_owners(len(picture.pixels), index)
            start = stop
    return pixels, rows, columns, owner
