"""Captions from end to end: pictures already decoded and cut go in, finished sequences come out."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from typing import Any

from jaxphoton.engine.engine import Engine
from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.engine.request import Request
from jaxphoton.image.crops import Crops
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.protocol import Prompt
from jaxphoton.platform import calm_interpreter
from jaxphoton.requests.settings import Settings
from scripts.gpu.encode import crops_of, pictures
from scripts.gpu.load import Load, row_counts
from scripts.models import family_named, is_small

TOKENS = 50  # of every caption: random weights do not know when to stop, so nothing but the limit ends one
WAVES = 3  # as many captions as this many times all rows
PROMPT = Prompt((1, 100, 2, 200, 3))
IMAGES_AT_ONCE = 4
CROPS = (1, 5, 10)


def captions(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Captions a second with all rows in use, for pictures of few and of many crops, and what the time goes into."""
    small = is_small(args.model)
    rows = row_counts(args.model)[-1]
    crops = crops_of(family_named(args.model), (1,) if small else CROPS)
    vision = tuple((IMAGES_AT_ONCE, IMAGES_AT_ONCE * n) for n in crops)
    load = Load(args.model, (rows,), prefill_lengths=(32,), vision=vision)
    calm_interpreter()
    yield {
        "tokens_per_caption": TOKENS,
        "rows": rows,
        "note": "random weights; every caption has the same length",
    } | load.faults()
    table, keys, launches = [], itertools.count(), list[tuple[float, LaunchMetrics]]()
    with Engine(load.programs) as engine:
        engine.observe(lambda launch: launches.append((time.perf_counter(), launch)))
        for n in crops:
            picture = pictures(load.family, 1, n)[0]
            run(engine, rows, picture, keys, launches)  # warm-up
            table.append({"crops": n, **run(engine, rows * (1 if small else WAVES), picture, keys, launches)})
            yield {"captions": table}


def run(
    engine: Engine, count: int, picture: Crops, keys: Iterator[int], launches: list[tuple[float, LaunchMetrics]]
) -> dict[str, Any]:
    """Shares are of the time between commits, by the kind of launch committed at its end; and of the time in which
    the host waited for the device."""
    # Greedy, as batches are captioned; a key of its own for each picture, so that none is found in the cache.
    settings = Settings(temperature=0.0, max_tokens=TOKENS, seed=0)
    requests = [
        Request(PROMPT, "free", settings, Prepared(picture, next(keys).to_bytes(8, "big"), (1, 1)))
        for _ in range(count)
    ]
    launches.clear()
    start = last = time.perf_counter()
    futures = [engine.submit(request).future for request in requests]
    tokens = sum(len(future.result().tokens) for future in futures)
    seconds, spent = time.perf_counter() - start, {"prefill": 0.0, "step": 0.0}
    for at, launch in launches:
        spent[launch.kind] += at - last
        last = at
    return {
        "captions": count,
        "seconds": seconds,
        "captions_s": count / seconds,
        "tokens_s": tokens / seconds,
        **{f"{kind}_share": part / seconds for kind, part in spent.items()},
        "wait_share": sum(launch.wait for _, launch in launches) / seconds,
    }
