"""Pooling matrices against stitching and adaptive pooling written as loops, and the recorded arrays."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from jaxphoton.models.moondream.config import VisionConfig
from jaxphoton.models.moondream.pictures import crop_count
from jaxphoton.models.moondream.pooling import pooling_matrices, stitch_matrices
from jaxphoton.models.moondream.reading import load_config

REAL = VisionConfig()
TILINGS = [(rows, columns) for rows in range(1, 13) for columns in range(1, 13) if rows * columns <= 12]


def stitch(tiles: np.ndarray, tiling: tuple[int, int], margin: int) -> np.ndarray:
    """[rows * columns, grid, grid, E] -> [H, W, E], a tile at a time."""
    (rows, columns), grid = tiling, tiles.shape[1]
    step = grid - 2 * margin
    out = np.full((rows * step + 2 * margin, columns * step + 2 * margin, tiles.shape[3]), np.nan)
    for i in range(rows):
        for j in range(columns):
            top, bottom = 0 if i == 0 else margin, grid if i == rows - 1 else grid - margin
            left, right = 0 if j == 0 else margin, grid if j == columns - 1 else grid - margin
            place = out[step * i + top : step * i + bottom, step * j + left : step * j + right]
            assert np.isnan(place).all(), "a cell is written twice"
            place[...] = tiles[i * columns + j, top:bottom, left:right]
    assert not np.isnan(out).any(), "a cell is never written"
    return out


def adaptive_pool(features: np.ndarray, out: int) -> np.ndarray:
    """[H, W, E] -> [out, out, E], a cell at a time."""
    height, width, _ = features.shape
    pooled = np.empty((out, out, features.shape[2]))
    for a in range(out):
        rows = slice(math.floor(a * height / out), math.ceil((a + 1) * height / out))
        for b in range(out):
            columns = slice(math.floor(b * width / out), math.ceil((b + 1) * width / out))
            pooled[a, b] = features[rows, columns].mean(axis=(0, 1))
    return pooled


def apply(rows: np.ndarray, columns: np.ndarray, features: np.ndarray) -> np.ndarray:
    return np.einsum("chg,cgke,cwk->hwe", rows, features, columns, optimize=True)


def of_tiles(rows: np.ndarray, columns: np.ndarray, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of `pooling_matrices` without the one of the global crop, if that is not the tile."""
    return rows[-len(tiles) :], columns[-len(tiles) :]


def random_tiles(tiling: tuple[int, int], grid: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((math.prod(tiling), grid, grid, 3))


@pytest.mark.parametrize("tiling", TILINGS)
def test_every_tiling_of_the_released_models(tiling):
    tiles = random_tiles(tiling, REAL.grid)
    expected = stitch(tiles, tiling, REAL.overlap_margin)
    np.testing.assert_array_equal(apply(*stitch_matrices(tiling, REAL), tiles), expected)
    rows, columns = pooling_matrices(tiling, REAL)
    assert rows.shape == columns.shape == (crop_count(tiling), 27, 27)
    pooled = apply(*of_tiles(rows, columns, tiles), tiles)
    np.testing.assert_allclose(pooled, adaptive_pool(expected, REAL.grid), atol=1e-6)


@given(tiling=st.tuples(st.integers(1, 6), st.integers(1, 6)), grid=st.integers(1, 12), data=st.data())
@example(tiling=(3, 2), grid=7, data=None)
def test_any_grid_and_margin(tiling, grid, data):
    margin = 1 if data is None else data.draw(st.integers(0, (grid - 1) // 2))
    config = VisionConfig(crop_size=14 * grid, overlap_margin=margin)
    tiles = random_tiles(tiling, grid)
    rows, columns = pooling_matrices(tiling, config)
    expected = adaptive_pool(stitch(tiles, tiling, margin), grid)
    np.testing.assert_allclose(apply(*of_tiles(rows, columns, tiles), tiles), expected, atol=1e-6)


def test_the_global_crop_passes_unchanged():
    for matrices in pooling_matrices((2, 3), REAL):
        np.testing.assert_array_equal(matrices[0], np.eye(27))


def test_one_tile_is_the_global_crop_and_the_identity():
    for matrices in pooling_matrices((1, 1), REAL):
        np.testing.assert_array_equal(matrices, np.eye(27)[None])


def test_every_output_cell_is_an_average():
    rows, columns = pooling_matrices((3, 4), REAL)
    # Tiles of one row of the picture share their row matrix.
    np.testing.assert_allclose(rows[1::4].sum(axis=(0, 2)), 1, rtol=1e-6)
    np.testing.assert_allclose(columns[1:5].sum(axis=(0, 2)), 1, rtol=1e-6)


def test_results_are_float32_shared_and_read_only():
    first, again = pooling_matrices((2, 2), REAL), pooling_matrices((2, 2), VisionConfig())
    for matrices, same in zip(first, again, strict=True):
        assert matrices.dtype == np.float32 and matrices is same
        with pytest.raises(ValueError, match="read-only"):
            matrices[0, 0, 0] = 1


@pytest.mark.parametrize("tiling", [(0, 1), (1, 0), (-1, 2)])
def test_bad_tilings(tiling):
    for make in (pooling_matrices, stitch_matrices):
        with pytest.raises(ValueError, match="at least one row"):
            make(tiling, REAL)


@pytest.mark.parametrize("model", ["md2-tiny", "md3-tiny"])
@pytest.mark.parametrize("image", ["image0", "image1", "image2"])
def test_recorded_arrays(goldens, model, image):
    config = load_config(goldens / model / "config.json").vision
    arrays = load_file(goldens / model / "cases.safetensors")
    cases = json.loads((goldens / model / "cases.json").read_text(encoding="utf-8"))["cases"]
    tiling = tuple(cases[image]["tiling"])
    encoded = arrays[f"{image}.encoded"]
    tiles = encoded.reshape(len(encoded), config.grid, config.grid, -1)[1:]
    stitched = apply(*stitch_matrices(tiling, config), tiles)
    np.testing.assert_array_equal(stitched, arrays[f"{image}.reconstructed"])
    rows, columns = pooling_matrices(tiling, config)
    pooled = apply(*of_tiles(rows, columns, tiles), tiles)
    np.testing.assert_allclose(pooled.reshape(config.image_tokens, -1), arrays[f"{image}.pooled"], rtol=0, atol=1e-6)
