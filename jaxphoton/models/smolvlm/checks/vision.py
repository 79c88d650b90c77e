"""Frames of pictures, the vision encoder, the connector."""

from __future__ import annotations

import dataclasses
import itertools
import re

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxphoton.models.siglip import checks as siglip
from jaxphoton.models.siglip.network import patches
from jaxphoton.models.smolvlm import vision
from jaxphoton.models.smolvlm.checks.bench import UNSPLIT, SmolVLMBench
from jaxphoton.models.smolvlm.pictures import SmolVLMPictures, frame_count
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings

_SIZES = re.compile(r"edge (\d+), tile (\d+)\b.*")


def check_geometry(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    pictures = bench.pictures
    for image, facts in case.facts["geometry"].items():
        size, tiling = (facts["height"], facts["width"]), (facts["rows"], facts["cols"])
        findings.equal(f"{image}: first resize", pictures.needed_size(*size), facts["after_first_resize"])
        findings.equal(f"{image}: tiling", pictures.tiling(*size), tiling)
        findings.equal(f"{image}: second resize", [pictures.tile * n for n in tiling], facts["after_second_resize"])
        findings.equal(f"{image}: frames", pictures.count(*size), facts["frames"])


def check_tilings(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    """Real picture sizes at the released models' settings."""
    tables = {name: found for name in case.facts if (found := _SIZES.fullmatch(name))}
    findings.equal("there are tables", len(tables) > 0, True)
    for name, found in tables.items():
        longest, tile = map(int, found.groups())
        for height, width, *tiling in case.facts[name]:
            got = SmolVLMPictures(tile, longest).tiling(height, width)
            findings.equal(f"{height} x {width} at {longest}", got, tiling)


def check_positions(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    """Which row of the position embeddings each patch has."""
    config, tower = bench.config.vision, bench.params.vision.tower
    rows = jnp.arange(config.image_tokens, dtype=tower.pos_emb.dtype)[:, None]
    numbered = dataclasses.replace(tower, pos_emb=jnp.broadcast_to(rows, tower.pos_emb.shape))
    pixels = np.full((1, config.image_size, config.image_size, 3), 128, np.uint8)
    added = siglip.hidden(numbered, config, pixels)[0] - np.asarray(patches(tower, config, jnp.asarray(pixels)))
    findings.equal("position_ids", np.rint(np.median(added[0], axis=-1)), case["position_ids"])


def check_image(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    """Frames to the last bit, and what becomes of them."""
    recorded, config = case["frames"], bench.config
    photo = Image.fromarray(bench.golden.images.read(f"{case.name.removesuffix(UNSPLIT)}.pixels"))
    cut = not case.name.endswith(UNSPLIT)
    pictures = dataclasses.replace(bench.pictures, splitting=cut and bench.pictures.splitting)
    # Which way each of the three resizes goes first Pillow 13 chooses by the shape; ours never does.
    ways = itertools.product((False, True), repeat=3)
    if not any(np.array_equal(_frames(pictures, photo, orders), recorded) for orders in ways):
        findings.equal("frames", pictures.prepare(photo).pixels, recorded)
    pixels = bench.crops(case.name).pixels
    embeddings = np.asarray(bench.picture(case.name).embeddings)[: len(pixels) * config.frame_tokens]
    findings.close("connected", embeddings, case["connected"])
    if "encoded" not in case:
        return  # recorded in parts
    layers = siglip.hidden(bench.params.vision.tower, config.vision, pixels)
    findings.close("vision_hidden", [layer[0] for layer in layers], case["vision_hidden"])
    encoded = vision.normed(bench.params.vision, jnp.asarray(layers[-1]))
    findings.close("encoded", encoded, case["encoded"])
    shuffled = vision.space_to_depth(encoded, config.scale_factor)
    findings.close("pixel_shuffled", shuffled[: len(case["pixel_shuffled"])], case["pixel_shuffled"])


def _frames(pictures: SmolVLMPictures, photo: Image.Image, orders: tuple[bool, ...]) -> np.ndarray:
    """Three resizes in a row, each with its height first or its width."""
    rows, columns = pictures.tiling(photo.height, photo.width)
    tile, size = pictures.tile, pictures.needed_size(photo.height, photo.width)
    picture = _resized(photo, size, orders[0])
    if not rows:
        return np.asarray(_resized(picture, (tile, tile), orders[1]))[None]
    picture = _resized(picture, (rows * tile, columns * tile), orders[1])
    corners = itertools.product(range(0, rows * tile, tile), range(0, columns * tile, tile))
    frames = [picture.crop((left, top, left + tile, top + tile)) for top, left in corners]
    frames.append(_resized(picture, (tile, tile), orders[2]))
    assert len(frames) == frame_count((rows, columns))
    return np.stack([np.asarray(frame) for frame in frames])


def _resized(picture: Image.Image, size: tuple[int, int], height_first: bool) -> Image.Image:
    height, width = size
    between = (picture.width, height) if height_first else (width, picture.height)
    for each in (between, (width, height)):
        picture = picture.resize(each, Image.Resampling.LANCZOS)
    return picture
