"""Stitching of the tiles and adaptive average pooling as small matrices, one pair a crop.

With them one device program serves every tiling: `sum over c of R[c] @ F[c] @ C[c].T` is the whole of it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from jaxphoton.models.moondream.config import VisionConfig

__all__ = ["pooling_matrices", "stitch_matrices"]


@lru_cache(maxsize=256)
def pooling_matrices(tiling: tuple[int, int], config: VisionConfig) -> tuple[np.ndarray, np.ndarray]:
    """The matrices that pool the crops of one picture to the grid of one crop.

    Args:
      tiling: (rows, columns) of local tiles.
      config: its `grid` and `overlap_margin` count.

    Returns:
      rows R and columns C, each float32 [1 + rows * columns, grid, grid] (read-only), in the order of `Crops`; of a
      single tile, which is the global crop, one identity.
      For features F[c] [grid, grid, E] of the tiles, the sum of R[c] @ F[c] @ C[c].T over c = 1.. is the stitched
      map, average-pooled to [grid, grid, E] as `torch.nn.AdaptiveAvgPool2d` does. R[0] and C[0], of the global
      crop, are identities.

    Raises:
      ValueError: the tiling is not two positive integers.
    """
    return _for_tiles(tiling, config, pooled=True)


@lru_cache(maxsize=256)
def stitch_matrices(tiling: tuple[int, int], config: VisionConfig) -> tuple[np.ndarray, np.ndarray]:
    """The matrices that stitch the tiles of one picture, without pooling.

    Returns:
      rows R, float32 [n, H, grid], and columns C, float32 [n, W, grid] (read-only), for the n = rows * columns
      tiles, made of zeros and ones: the sum of R[i] @ F[i] @ C[i].T is the stitched map [H, W, E], where
      H = rows * (grid - 2 * overlap_margin) + 2 * overlap_margin, and W likewise.

    Raises:
      ValueError: the tiling is not two positive integers.
    """
    return _for_tiles(tiling, config, pooled=False)


def _for_tiles(tiling: tuple[int, int], config: VisionConfig, pooled: bool) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = tiling
    if rows < 1 or columns < 1:
        raise ValueError(f"a tiling has at least one row and one column, got {tiling}")
    tile_rows, tile_columns = _selection(rows, config), _selection(columns, config)
    if pooled:
        tile_rows = _average(tile_rows.shape[1], config.grid) @ tile_rows
        tile_columns = _average(tile_columns.shape[1], config.grid) @ tile_columns
    # Tiles are in row-major order.
    tile_rows, tile_columns = np.repeat(tile_rows, columns, axis=0), np.tile(tile_columns, (rows, 1, 1))
    if pooled and rows * columns > 1:
        whole = np.eye(config.grid)[None]
        tile_rows, tile_columns = np.concatenate([whole, tile_rows]), np.concatenate([whole, tile_columns])
    return _frozen(tile_rows), _frozen(tile_columns)


def _selection(tiles: int, config: VisionConfig) -> np.ndarray:
    """float64 [tiles, length, grid]: which cell of the stitched axis each cell of each tile becomes.

    Overlapping margins belong to nobody but the border of the picture, so every cell has one owner.
    """
    grid, margin = config.grid, config.overlap_margin
    step = grid - 2 * margin
    matrices = np.zeros((tiles, tiles * step + 2 * margin, grid))
    for tile in range(tiles):
        first = 0 if tile == 0 else margin
        last = grid if tile == tiles - 1 else grid - margin
        cells = np.arange(first, last)
        matrices[tile, tile * step + cells, cells] = 1
    return matrices


def _average(length: int, out: int) -> np.ndarray:
    """float64 [out, length]: output i averages the inputs from floor(i*length/out) to ceil((i+1)*length/out) - 1."""
    matrix = np.zeros((out, length))
    for i in range(out):
        start, stop = i * length // out, -(-(i + 1) * length // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def _frozen(matrices: np.ndarray) -> np.ndarray:
    matrices = matrices.astype(np.float32)
    matrices.setflags(write=False)
    return matrices
