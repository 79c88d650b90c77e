"""Crops, tilings, vision encoder, stitching, pooling, projection."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.layers.vision_block import normalise, patchify
from jaxphoton.models.moondream import vision
from jaxphoton.models.moondream.checks.bench import MoondreamBench
from jaxphoton.models.moondream.config import VisionConfig
from jaxphoton.models.moondream.pictures import crop_owners, cut_crops, select_tiling
from jaxphoton.models.moondream.pooling import pooling_matrices, stitch_matrices
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings


def check_crops(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    config = bench.config.vision
    pixels, crops = case["pixels"], case["crops"]
    ours, turned = _recorded_form(cut_crops(pixels, config).pixels), _recorded_form(_height_first(pixels, config))
    for name, part in (("global crop", slice(0, 1)), ("tiles", slice(1, None))):
        if not np.array_equal(crops[part], turned[part]):
            findings.equal(name, ours[part], crops[part])
    if "normalized_corner" in case:
        corner = case["normalized_corner"]
        pixels = np.asarray(normalise(jnp.asarray(crops[:1])))[0]
        findings.close("normalized_corner", pixels[: corner.shape[1], : corner.shape[2]].transpose(2, 0, 1), corner)
    if "patches_global_crop" in case:
        rows = case["patches_global_crop"]
        patches = patchify(normalise(jnp.asarray(crops[:1])), config.enc_patch_size)
        findings.close("patches_global_crop", np.asarray(patches)[0, : len(rows)], rows)


def _recorded_form(crops: np.ndarray) -> np.ndarray:
    """What belongs to the crops of a picture as the originals have it: they cut and encode a single tile, too."""
    return np.concatenate([crops, crops]) if len(crops) == 1 else crops


def _height_first(pixels: np.ndarray, config: VisionConfig) -> np.ndarray:
    """The crops as `cut_crops`, with the other order of the two passes of a resize.

    The originals leave the order to Pillow, which chooses it by the shape from 13.0 on: recorded crops may have either.
    """
    turned = cut_crops(pixels.swapaxes(0, 1), config)
    columns, rows = turned.tiling
    tiles = (1 + column * rows + row for row in range(rows) for column in range(columns))
    return turned.pixels[[0, *tiles][: len(turned.pixels)]].swapaxes(1, 2)


def check_image(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    config = bench.config.vision
    crops = bench.crops(case.name)
    if "tiling" in case.facts:
        findings.equal("tiling", crops.tiling, case.facts["tiling"])
    rows, columns = pooling_matrices(crops.tiling, config)
    owner = crop_owners(len(crops.pixels))
    run = jax.jit(partial(_stages, config=config))
    features, pooled, projected = run(bench.params.vision, pixels=crops.pixels, rows=rows, columns=columns, owner=owner)
    features = _recorded_form(np.asarray(features))
    findings.close("projected", projected, case["projected"])
    if "encoded" not in case:
        return  # recorded in parts
    findings.close("encoded", features, case["encoded"])
    findings.close("pooled", pooled, case["pooled"])
    stitch_rows, stitch_columns = stitch_matrices(crops.tiling, config)
    local = features[1:].reshape(-1, config.grid, config.grid, config.enc_dim)
    stitched = np.einsum("cay,cyxe,cbx->abe", stitch_rows, local, stitch_columns)
    findings.close("reconstructed", stitched, case["reconstructed"])


def _stages(params, config: VisionConfig, pixels, rows, columns, owner):
    features = vision.encode(params, config, pixels)
    global_map, pooled_map = vision.combine(config, features, rows, columns, owner, images=1)
    projected = vision.project(params, global_map, pooled_map)
    return features.astype(jnp.float32), pooled_map[0], projected[0].astype(jnp.float32)


def check_tiling(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """Real picture sizes at the released models' settings."""
    config = VisionConfig()
    for height, width, rows, columns in case.facts["rows"]:
        findings.equal(f"{height} x {width}", select_tiling(height, width, config), (rows, columns))
