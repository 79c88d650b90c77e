"""`--dry-run`: what a run would be about, and what it would need."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from jaxphoton.cli.base import OK

if TYPE_CHECKING:
    from jaxphoton.batch.questions import Questions
    from jaxphoton.batch.sources import Selection, Source
    from jaxphoton.models.moondream.config import ModelConfig

_PROBED = 10_000  # headers read; the rest is taken to be alike
_TOKENS = 768  # the most of a text, where --max-tokens does not say


def dry_run(args: argparse.Namespace, questions: Questions, source: Source, selection: Selection) -> int:
    """Prints it; the exit code."""
    from jaxphoton.batch.dryrun import probe
    from jaxphoton.image.pillow import MAX_PIXELS

    config = _settings(args.model)
    total = selection.count(source)
    found = probe(selection.items(source), config.vision, args.max_pixels or MAX_PIXELS, _PROBED)
    images = found.probed if total is None else total
    more = " or more" if total is None and found.probed == _PROBED else ""
    print(f"{images:,}{more} images, of which {found.probed:,} were looked at (headers only)")
    for line in selection.part(source)[0].skipped.lines():
        print(f"  {line}")
    if found.crops:
        width, height = found.largest
        pixels = found.pixels / found.crops.total() / 1e6
        print(f"  {pixels:.2f} megapixels each on average, the largest {width} x {height}")
        histogram = ", ".join(f"{crops}: {number:,}" for crops, number in sorted(found.crops.items()))
        print(f"  {found.mean_crops:.1f} crops each on average (crops: images {histogram})")
    if found.reasons:
        print("  cannot be used: " + ", ".join(f"{name} {n:,}" for name, n in found.reasons.most_common()))
    _show_tokens(args, questions, config, images)
    _show_memory(args, config)
    _show_time(args, images)
    return OK


def _show_tokens(args: argparse.Namespace, questions: Questions, config: ModelConfig, images: int) -> None:
    asks = sum(questions.captions if question.kind == "caption" else 1 for question in questions.each)
    prefix, most = config.text.prefix_attn, args.max_tokens or _TOKENS
    print(f"tokens: {images * prefix:,} of the images ({prefix} each), at most {images * asks * most:,} generated")


def _show_memory(args: argparse.Namespace, config: ModelConfig) -> None:
    from jaxphoton.config import EngineConfig
    from jaxphoton.measure.memory_plan import Planner, engine_of

    engine = engine_of(args.rows or EngineConfig().max_rows)
    dtype = args.dtype or "bfloat16"
    print(f"memory of {engine.max_rows} images at once of a whole context, in {dtype}:")
    for line in Planner(config, dtype).load(engine, config.text.max_context).lines():
        print(f"  {line}")


def _show_time(args: argparse.Namespace, images: int) -> None:
    from jaxphoton.batch.summary import cost_per_million, duration

    if args.rate is None:
        print("time: give --rate, the images a second of an earlier run, for an estimate")
        return
    print(f"time: {duration(images / args.rate)} at {args.rate:g} images/s")
    if args.gpu_hour_price is not None:
        whole = cost_per_million(args.rate, args.gpu_hour_price)
        print(f"cost: {whole * images / 1e6:,.2f} ({whole:,.2f} for a million images)")


def _settings(model: str) -> ModelConfig:
    """Of a model that may not have been downloaded; BatchError if it is not known."""
    from jaxphoton.batch.errors import BatchError
    from jaxphoton.measure.models import FAMILIES, settings_of

    family = next((name for name in FAMILIES if model.lower().endswith(name)), model)
    try:
        return settings_of(family)
    except ValueError as error:
        raise BatchError(str(error)) from error
