"""Pictures, the vision encoder, the projector."""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxphoton.image.ways import Filter
from jaxphoton.layers.vision_block import normalise, patchify
from jaxphoton.models.joycaption import vision
from jaxphoton.models.joycaption.checks.bench import JoyCaptionBench
from jaxphoton.models.joycaption.config import ModelConfig
from jaxphoton.models.joycaption.pictures import JoyCaptionPictures
from jaxphoton.models.siglip import checks as siglip
from jaxphoton.models.siglip.network import encode, patches
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings

MEAN_ROUNDED = 6e-4  # recorded with three decimals


def check_filters(bench: JoyCaptionBench, case: Case, findings: Findings) -> None:
    """How far the two filters are from each other, each with its passes in either order."""
    for image, facts in case.facts["filter_difference"].items():
        author, processor = (_orders(bench, image, each) for each in ("lanczos", "bicubic"))
        found = [_apart(*each) for each in itertools.product(author, processor)]
        recorded = (facts["author_vs_processor_max"], facts["author_vs_processor_mean"])
        close = any(most == recorded[0] and abs(mean - recorded[1]) <= MEAN_ROUNDED for most, mean in found)
        findings.equal(f"{image}: (max, mean) of the difference", recorded if close else found[0], recorded)


def _apart(one: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    away = np.abs(one.astype(int) - other)
    return int(away.max()), float(away.mean())


def check_image(bench: JoyCaptionBench, case: Case, findings: Findings) -> None:
    recorded, config = case["resized"], bench.family.config
    _compare(findings, "resized", _orders(bench, case.name, "lanczos"), recorded)
    if "resized_processor" in case:
        _compare(findings, "resized_processor", _orders(bench, case.name, "bicubic"), case["resized_processor"])
    pixels = bench.crops(case.name).pixels
    run = jax.jit(partial(_stages, config=config))
    embedded, feature, projected = (np.asarray(part)[0] for part in run(bench.params.vision, pixels=pixels))
    findings.close("projected", projected, case["projected"])
    if "vision_hidden" not in case:
        return  # recorded in parts
    findings.close("feature", feature, case["feature"])
    findings.close("patch_embeds", embedded, case["patch_embeds"])
    corner, rows = case["normalized_corner"], case["patches"]
    normal = np.asarray(normalise(jnp.asarray(pixels)))
    findings.close("normalized_corner", normal[0, : corner.shape[1], : corner.shape[2]].transpose(2, 0, 1), corner)
    cut = patchify(jnp.asarray(normal), config.vision.patch_size)
    findings.close("patches", np.asarray(cut)[0, : len(rows)], rows)
    layers = siglip.hidden(bench.tower, config.vision, pixels)
    findings.close("vision_hidden", [layer[0] for layer in layers], case["vision_hidden"])


def _stages(params, config: ModelConfig, pixels):
    features = encode(params.tower, config.vision, pixels)
    return patches(params.tower, config.vision, pixels), features, vision.project(params, features)


def _orders(bench: JoyCaptionBench, image: str, filter: Filter) -> list[np.ndarray]:
    """A picture resized, width first, and height first: Pillow, which made the recorded ones, chooses it by the shape
    from 13.0 on."""
    pictures = bench.family.pictures
    assert isinstance(pictures, JoyCaptionPictures)
    pictures, pixels = dataclasses.replace(pictures, filter=filter), bench.golden.images.read(f"{image}.pixels")
    ours, turned = (pictures.prepare(Image.fromarray(each)).pixels[0] for each in (pixels, pixels.swapaxes(0, 1)))
    return [ours, turned.swapaxes(0, 1)]


def _compare(findings: Findings, name: str, orders: list[np.ndarray], expected: np.ndarray) -> None:
    if not np.array_equal(orders[1], expected):
        findings.equal(name, orders[0], expected)
