"""Requests a second, and how long they wait: a load of captions or questions through the whole engine."""

from __future__ import annotations

import asyncio
import io
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxphoton.aio import AsyncModel
from jaxphoton.api import Model
from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.requests.answer import Result
from jaxphoton.requests.errors import QueueFull

SAMPLE_S = 0.02  # between two looks at the queue
COMPILED = "/jax/core/compile/backend_compile_duration"

Ask = Callable[[Any], Awaitable[Result]]
Percentiles = dict[str, float]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load has shown.

    Attributes:
      requests, finished, refused, failed: how many were made and how they ended; refused ones met a full queue.
      seconds: from the first arrival to the last end.
      images_per_s, tokens_per_s: finished requests and their generated ids.
      tokens_per_request: mean.
      first_token_ms, total_ms: from submission, image decoding not included: p50, p90, p99.
      queue_depth: requests that wait: mean and most.
      image_decode_s: processor seconds of decoding and cropping, all images together.
      shares: of the time, in which the device had launches of each kind, or none.
      compiled: programs compiled while it ran.
    """

    requests: int
    finished: int
    refused: int
    failed: int
    seconds: float
    images_per_s: float
    tokens_per_s: float
    tokens_per_request: float
    first_token_ms: Percentiles
    total_ms: Percentiles
    queue_depth: dict[str, float]
    image_decode_s: float
    shares: dict[str, float]
    compiled: int


@dataclass
class _Record:
    results: list[Result] = field(default_factory=list)
    refused: int = 0
    failures: list[Exception] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    busy: dict[str, float] = field(default_factory=lambda: {"images and prompts": 0.0, "prompts": 0.0, "decode": 0.0})
    last: float = 0.0

    def launch(self, launch: LaunchMetrics) -> None:
        """The device works on a launch from when it was enqueued, or the one before was done, until it arrives."""
        kind = "decode" if launch.kind == "step" else "images and prompts" if launch.images else "prompts"
        self.busy[kind] += max(0.0, launch.arrived - max(self.last, launch.began + launch.plan))
        self.last = launch.arrived


class Load:
    """Loads on one model; `warm_up` first."""

    def __init__(self, model: Model, ask: Callable[[AsyncModel, Any], Awaitable[Result]]):
        self._model, self._async = model, AsyncModel(model)
        self._ask: Ask = lambda image: ask(self._async, image)

    def warm_up(self, images: Iterable[Any]) -> None:
        """Compiles everything and fills caches."""
        self.closed(images, 4)

    def closed(self, images: Iterable[Any], concurrency: int) -> LoadReport:
        """Keeps `concurrency` requests under way until there are no more images."""

        async def drive(record: _Record) -> None:
            source = iter(images)

            async def worker() -> None:
                for image in source:
                    await self._one(record, image)

            await asyncio.gather(*(worker() for _ in range(concurrency)))

        return self._measured(drive)

    def open(self, images: Iterable[Any], arrivals: Iterable[float]) -> LoadReport:
        """Submits each image at its time (seconds), whatever has become of the others."""

        async def drive(record: _Record) -> None:
            started, tasks = time.monotonic(), []
            for image, when in zip(images, arrivals, strict=False):
                await asyncio.sleep(max(0.0, started + when - time.monotonic()))
                tasks.append(asyncio.create_task(self._one(record, image)))
            await asyncio.gather(*tasks)

        return self._measured(drive)

    async def _one(self, record: _Record, image: Any) -> None:
        try:
            record.results.append(await self._ask(image))
        except QueueFull:
            record.refused += 1
        except Exception as error:  # counted; the load goes on
            record.failures.append(error)

    def _measured(self, drive: Callable[[_Record], Awaitable[None]]) -> LoadReport:
        record, engine = _Record(), self._model.engine
        engine.drain()  # what ended rows of the load before still run
        with engine.observe(launches=record.launch), _compilations() as compiled:
            started = time.monotonic()
            asyncio.run(_watched(drive(record), lambda: record.depths.append(engine.metrics().waiting)))
            seconds = time.monotonic() - started
        return _report(record, seconds, len(compiled))


async def _watched(work: Awaitable[None], look: Callable[[], None]) -> None:
    async def sample() -> None:
        while True:
            look()
            await asyncio.sleep(SAMPLE_S)

    sampler = asyncio.create_task(sample())
    try:
        await work
    finally:
        sampler.cancel()


@contextmanager
def _compilations() -> Iterator[list[str]]:
    """Collects what is compiled meanwhile."""
    found: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == COMPILED:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _report(record: _Record, seconds: float, compiled: int) -> LoadReport:
    metrics = [result.metrics for result in record.results if result.metrics is not None]
    tokens = sum(len(result.tokens) for result in record.results)
    finished, failed = len(record.results), len(record.failures)
    shares = {kind: busy / seconds for kind, busy in record.busy.items()}
    return LoadReport(
        requests=finished + failed + record.refused,
        finished=finished,
        refused=record.refused,
        failed=failed,
        seconds=seconds,
        images_per_s=finished / seconds,
        tokens_per_s=tokens / seconds,
        tokens_per_request=tokens / max(1, finished),
        first_token_ms=_percentiles([1e3 * (m.queue + m.prefill) for m in metrics]),
        total_ms=_percentiles([1e3 * m.total for m in metrics]),
        queue_depth={"mean": statistics.fmean(record.depths or [0]), "most": max(record.depths, default=0)},
        image_decode_s=sum(m.prepare for m in metrics),
        shares={**shares, "nothing": max(0.0, 1 - sum(shares.values()))},
        compiled=compiled,
    )


def _percentiles(values: list[float]) -> Percentiles:
    if not values:
        return {}
    return {f"p{p}": float(np.percentile(values, p)) for p in (50, 90, 99)}


def synthetic_images(count: int, width: int, height: int, seed: int = 0) -> Iterator[bytes]:
    """JPEG files of smooth random pictures, no two alike: the engine would encode the same picture once."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        file = io.BytesIO()
        small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        yield file.getvalue()


def poisson(rate: float, seed: int = 0) -> Iterator[float]:
    """Seconds from the start at which requests arrive independently of each other, `rate` a second on average."""
    random_ = random.Random(seed)
    now = 0.0
    while True:
        now += random_.expovariate(rate)
        yield now


def bursts(rate: float, size: int, seed: int = 0) -> Iterator[float]:
    """The same average rate, in groups of `size` that arrive together; the groups arrive as `poisson` does."""
    for when in poisson(rate / size, seed):
        for _ in range(size):
            yield when
