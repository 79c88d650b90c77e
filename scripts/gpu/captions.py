"""Captions from end to end: pictures already decoded and cut go in, finished sequences come out."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from typing import Any

from jaxphoton.engine.engine import Engine
from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.engine.request import ImageInput, Request
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.platform import calm_interpreter
from jaxphoton.requests.settings import Settings
from scripts.gpu.encode import pictures
from scripts.gpu.load import Load, row_counts

TOKENS = 50  # of every caption: random weights do not know when to stop, so nothing but the limit ends one
WAVES = 3  # as many captions as this many times all rows
PROMPT = Prompt((1, 100, 2, 200, 3))
IMAGES_AT_ONCE = 4


def captions(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Captions a second with all rows in use, for pictures of few and of many crops, and what the time goes into."""
    small = args.model == "small"
    crops = (2,) if small else (2, 5, 10)
    rows = row_counts(args.model)[-1]
    vision = tuple((IMAGES_AT_ONCE, IMAGES_AT_ONCE * n) for n in crops)
    load = Load(args.model, (rows,), prefill_lengths=(32,), vision=vision)
    calm_interpreter()
    yield {
        "tokens_per_caption": TOKENS,
        "rows": rows,
        "note": "random weights; every caption has the same length",
    } | load.faults()
    table, keys = [], itertools.count()
    with _Measured(load) as engine:
        for n in crops:
            engine.run(n, 1, keys)  # warm-up
            table.append(engine.run(n, 1 if small else WAVES, keys))
            yield {"captions": table}


class _Measured:
    """An engine whose launches are looked at."""

    def __init__(self, load: Load):
        self._load, self._launches = load, list[tuple[float, LaunchMetrics]]()
        self._engine = Engine(load.programs, on_metrics=lambda launch: self._launches.append((_now(), launch)))

    def __enter__(self) -> _Measured:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._engine.shutdown(wait=kind is None)

    def run(self, crops: int, waves: int, keys: Iterator[int]) -> dict[str, Any]:
        engine = self._load.programs.engine
        count, picture = waves * engine.max_rows, pictures(self._load.config, 1, crops)[0]
        # Greedy, as batches are captioned; a key of its own for each picture, so that none is found in the cache.
        settings = Settings(temperature=0.0, max_tokens=TOKENS, seed=0)
        requests = [
            Request(PROMPT, "free", settings, ImageInput(next(keys).to_bytes(8, "big"), picture)) for _ in range(count)
        ]
        self._launches.clear()
        start = _now()
        futures = [self._engine.submit(request).future for request in requests]
        tokens = sum(len(future.result().tokens) for future in futures)
        seconds = _now() - start
        return {
            "crops": crops,
            "captions": count,
            "seconds": seconds,
            "captions_s": count / seconds,
            "tokens_s": tokens / seconds,
            **self._shares(start, seconds),
        }

    def _shares(self, start: float, seconds: float) -> dict[str, float]:
        """Of the time between commits, by the kind of launch that was committed at its end; and the time in which the
        host waited for the device."""
        spent, last = {"prefill": 0.0, "step": 0.0}, start
        for at, launch in self._launches:
            spent[launch.kind] += at - last
            last = at
        waited = sum(launch.wait for _, launch in self._launches)
        return {**{f"{kind}_share": part / seconds for kind, part in spent.items()}, "wait_share": waited / seconds}


def _now() -> float:
    return time.perf_counter()
