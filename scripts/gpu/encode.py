"""Everything before the first token: vision, image prefixes, prompts."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxphoton.engine.control import Block
from jaxphoton.engine.device import Device
from jaxphoton.engine.launch import PrefillPlan
from jaxphoton.engine.request import Request, sequence_of
from jaxphoton.image.crops import Crops
from jaxphoton.image.prepare import Prepared
from jaxphoton.measure.cost_model import encode_cost, prefill_cost, prefix_cost
from jaxphoton.measure.decoding import scheduler_of
from jaxphoton.measure.roofline import prefix_name
from jaxphoton.measure.timing import device_seconds, matmul_rate, random_array
from jaxphoton.models.costs import Cost
from jaxphoton.models.protocol import IMAGE, Family, Kernels, Prompt
from jaxphoton.models.smolvlm.pictures import UNSPLIT
from jaxphoton.requests.settings import Settings
from scripts.gpu.load import Load, Stepper, row_counts
from scripts.models import family_named, is_small

TILINGS = {1: (1, 1), 5: (2, 2), 10: (3, 3), 13: (3, 4), 17: (4, 4)}
PLAIN_KERNELS = Kernels("reference")
PLAIN = (5, 10)  # crops for which the plain attention is measured too
CROPS = (1, 5, 10, 13, 17)  # of one image
SEVERAL, THEIRS = 4, 10  # images at once, and the most crops of each


def encode(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Device time of each program, back to back, and its share of the measured matrix rate."""
    small = is_small(args.model)
    sizes = vision_sizes(family_named(args.model))
    sizes = sizes[:2] if small else sizes
    lengths = (32,) if small else (32, 128)
    load = Load(args.model, row_counts(args.model)[-1:], vision=sizes, prefill_lengths=lengths)
    rate, table = matmul_rate(), list[dict[str, Any]]()
    yield {"matmul_tflop_s": rate / 1e12, **load.faults()}
    for name, cost, launch in programs(load):
        seconds = device_seconds(launch)
        achieved = cost.flops / seconds
        line = {"program": name, "ms": 1e3 * seconds, "tflop_s": achieved / 1e12, "matmul_share": achieved / rate}
        table.append(line)
        yield {"programs": table}


def programs(load: Load) -> Iterator[tuple[str, Cost, Any]]:
    """(name, cost, launch)."""
    compiled, buckets, family, dtype = load.programs, load.programs.buckets, load.family, load.dtype
    for images, crops in buckets.vision:
        cut = pictures(family, images, crops // images)
        packed = jax.device_put(family.pack(cut, images, crops, lambda index: contextlib.nullcontext()))
        run = compiled["vision", images, crops]
        cost = encode_cost(family, dtype, crops, images)
        yield f"encode {images} x {crops // images}", cost, lambda run=run, p=packed: run(compiled.encoder, *p)
        if images == 1 and (crops in PLAIN or family.max_crops == 1):
            plain = jax.jit(partial(family.network.encode, images=images, kernels=PLAIN_KERNELS))
            tree = family.network.encoder(compiled.params)
            yield f"encode 1 x {crops}, XLA attention", cost, lambda run=plain, t=tree, p=packed: run(t, *p)
    device = Device(compiled)
    for rows, length in buckets.prefill:
        plan, past = _prefill_plan(load, rows, length)
        cost = prefill_cost(family, dtype, rows, length, past)
        yield f"prefill {rows} x {length}", cost, lambda plan=plan: device.prefill(plan)[1]
    device.close()  # its cache makes room for the next
    stepper = Stepper(load.state())
    for images, length in buckets.prefix:
        embeddings = random_array((images, family.image_tokens, family.width), dtype)
        places = jax.device_put(_places(compiled, images, length))
        name, cost = prefix_name(family, images, length), prefix_cost(family, dtype, images, length=length)
        yield name, cost, _prefix(stepper, compiled, (images, length), embeddings, places)


def vision_sizes(family: Family) -> tuple[tuple[int, int], ...]:
    """(images, crops) of the encoders."""
    counts = crops_of(family, CROPS)
    return (*((1, count) for count in counts), (SEVERAL, SEVERAL * max(crops_of(family, range(1, THEIRS + 1)))))


def crops_of(family: Family, counts: Iterable[int]) -> tuple[int, ...]:
    """Of these counts of crops those that a picture may have."""
    return tuple(count for count in counts if count <= family.max_crops)


def pictures(family: Family, count: int, crops: int) -> list[Crops]:
    """Pictures already cut, of random pixels."""
    random, vision = np.random.default_rng(0), family.config.vision
    size = vision.crop_size if family.name == "moondream" else vision.image_size
    tiling = UNSPLIT if crops == 1 and family.name == "smolvlm" else TILINGS[crops]
    shape = (crops, size, size, 3)
    return [Crops(random.integers(0, 256, shape, np.uint8), tiling) for _ in range(count)]


def _places(compiled: Any, images: int, length: int) -> np.ndarray:
    """The control of prefixes of `length` positions, each in pages of its own; of ids that are not always the same the
    last are an image's."""
    pages, family = -(-length // compiled.engine.page_size), compiled.family
    ids = 0 if family.fixed_prefix else length
    control = np.zeros((images, compiled.table + len(Block) + ids), np.int32)
    control[:, :pages] = np.arange(1, 1 + images * pages).reshape(images, -1)
    control[:, compiled.table + Block.COUNT] = control[:, compiled.table + Block.PREFIX] = length
    if ids:
        control[:, -min(length, family.image_tokens) :] = IMAGE
    return control


def _prefix(stepper: Stepper, compiled: Any, bucket: tuple[int, int], embeddings: jax.Array, places: jax.Array) -> Any:
    run = compiled["prefix", *bucket]

    def enqueue() -> jax.Array:
        stepper.cache = run(compiled.decoder, stepper.cache, embeddings, places)
        return stepper.cache.k

    return enqueue


def _prefill_plan(load: Load, rows: int, length: int) -> tuple[PrefillPlan, int]:
    """Prompts behind image prefixes that are in the cache already, and the positions of a prefix."""
    scheduler, family, page = scheduler_of(load.programs), load.family, load.programs.engine.page_size
    picture = pictures(family, 1, min(TILINGS))[0]
    prompt = Prompt(tuple(np.random.default_rng(0).integers(20, 500, length).tolist()))
    settings = Settings(temperature=0.0, max_tokens=load.ticks, seed=0)
    for row in range(rows):
        request = Request(prompt, "free", settings, Prepared(picture, row.to_bytes(8, "big"), (1, 1)))
        scheduler.add(sequence_of(request, family, page))
    while isinstance(scheduler.plan(0), PrefillPlan):
        pass  # as many pictures at a time as a program takes
    return PrefillPlan(tuple(scheduler.running), ()), len(family.segments(prompt, picture).prefix)
