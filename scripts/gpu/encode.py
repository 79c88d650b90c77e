"""Everything before the first token: vision, image prefixes, prompts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxphoton.engine.crops import pack_crops
from jaxphoton.engine.layout import Prefill, Row
from jaxphoton.image.crops import Crops
from jaxphoton.layers.attention import attend
from jaxphoton.measure.cost_model import Cost, encode_cost, prefill_cost, prefix_cost
from jaxphoton.measure.timing import device_seconds, matmul_rate, random_array
from jaxphoton.models.moondream import vision
from jaxphoton.models.moondream.config import ModelConfig
from scripts.gpu.load import Load, Stepper, row_counts

TILINGS = {2: (1, 1), 5: (2, 2), 10: (3, 3), 13: (3, 4)}
PLAIN = (5, 10)  # crops for which the plain attention is measured too
VISION = ((1, 2), (1, 5), (1, 10), (1, 13), (4, 40))  # (images, crops)


def encode(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Device time of each program, back to back, and its share of the measured matrix rate."""
    small = args.model == "small"
    sizes = VISION[:2] if small else VISION
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
    compiled, buckets, config, dtype = load.programs, load.programs.buckets, load.config, load.dtype
    for images, crops in buckets.vision:
        packed = jax.device_put(pack_crops(pictures(config, images, crops // images), crops, config))
        run = compiled["vision", images, crops]
        cost = encode_cost(config, dtype, crops, images)
        yield f"encode {images} x {crops // images}", cost, lambda run=run, p=packed: run(compiled.params.vision, *p)
        if images == 1 and crops in PLAIN:
            plain = jax.jit(partial(_embed, config, images))
            yield (
                f"encode 1 x {crops}, XLA attention",
                cost,
                lambda run=plain, p=packed: run(compiled.params.vision, *p),
            )
    stepper = Stepper(load.state())
    for images in buckets.prefix:
        embeddings = random_array((images, config.text.prefix_attn - 1, config.text.dim), dtype)
        pages = np.arange(1, 1 + images * compiled.prefix_pages, dtype=np.int32).reshape(images, -1)
        cost = prefix_cost(config, dtype, images)
        yield f"prefix {images}", cost, _prefix(stepper, compiled, images, embeddings, jax.device_put(pages))
    for rows, length in buckets.prefill:
        run, past = compiled["prefill", rows, length], config.text.prefix_attn
        launch = stepper.launch(run, compiled.text_params, jax.device_put(_prompt(load, rows, length)))
        yield f"prefill {rows} x {length}", prefill_cost(config, dtype, rows, length, past), launch


def _embed(config: ModelConfig, images: int, params: Any, *packed: Any) -> jax.Array:
    pixels, rows, columns, image = packed
    return vision.embed_images(params, config.vision, pixels, rows, columns, image, images, attend)


def pictures(config: ModelConfig, count: int, crops: int) -> list[Crops]:
    """Pictures already cut, of random pixels."""
    random, size = np.random.default_rng(0), config.vision.crop_size
    shape = (crops, size, size, 3)
    return [Crops(random.integers(0, 256, shape, np.uint8), TILINGS[crops]) for _ in range(count)]


def _prefix(stepper: Stepper, compiled: Any, images: int, embeddings: jax.Array, pages: jax.Array) -> Any:
    run = compiled["prefix", images]

    def enqueue() -> jax.Array:
        stepper.cache = run(compiled.text_params, stepper.cache, embeddings, pages)
        return stepper.cache.k

    return enqueue


def _prompt(load: Load, rows: int, length: int) -> np.ndarray:
    """Control of a prefill of whole chunks behind image prefixes."""
    compiled, text = load.programs, load.config.text
    control = np.zeros((rows, len(Row) + compiled.table + len(Prefill) + 4 * length), np.int32)
    control[:, Row.ROW] = np.arange(rows)
    control[:, Row.POSITION] = text.prefix_attn
    control[:, Row.HOLE] = -text.prefix_attn % compiled.engine.page_size
    control[:, Row.MAX_TOKENS] = 10**6
    pages = 1 + np.arange(rows * compiled.table, dtype=np.int32) % (compiled.pages - 1)
    control[:, len(Row) : len(Row) + compiled.table] = pages.reshape(rows, -1)
    extra = control[:, len(Row) + compiled.table :]
    extra[:, Prefill.COUNT], extra[:, Prefill.SAMPLE] = length, 1
    extra[:, Prefill.STATE] = compiled.automaton.start["free"]
    extra[:, len(Prefill) : len(Prefill) + length] = np.random.default_rng(0).integers(20, 500, (rows, length))
    return control
