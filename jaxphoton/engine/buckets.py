"""The shapes that programs are compiled for. No jax."""

from __future__ import annotations

from dataclasses import dataclass

from jaxphoton.config import EngineConfig
from jaxphoton.engine.scheduler import Limits
from jaxphoton.models.moondream.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Buckets:
    """The shapes that are compiled. `vision` holds (images, crops)."""

    step: tuple[int, ...]
    prefill: tuple[tuple[int, int], ...]  # (rows, length)
    vision: tuple[tuple[int, int], ...]

    @property
    def prefix(self) -> tuple[int, ...]:
        return tuple(sorted({images for images, _ in self.vision}))


def make_buckets(config: EngineConfig, model: ModelConfig) -> Buckets:
    """The buckets that a configuration asks for; one of each kind with `fixed_shapes`."""
    most = 1 + model.vision.max_crops
    sizes = config.vision or default_vision(most, max(config.prefill_rows))
    if config.fixed_shapes:
        return Buckets((max(config.step_rows),), ((1, max(config.prefill_lengths)),), ((1, most),))
    prefill = tuple((rows, length) for rows in config.prefill_rows for length in config.prefill_lengths)
    return Buckets(config.step_rows, prefill, tuple(sorted(sizes, key=lambda size: (size[1], size[0]))))


def default_vision(most_crops: int, images: int) -> tuple[tuple[int, int], ...]:
    """Single images of few, of many and of the most crops; several images of few and of many."""
    singles = {(1, crops) for crops in (2, 5, 10, most_crops) if crops <= most_crops}
    several = {(images, images * crops) for crops in (5, 10) if crops <= most_crops} if images > 1 else set()
    return tuple(singles | several)


def limits_of(config: EngineConfig, buckets: Buckets) -> Limits:
    rows = max(rows for rows, _ in buckets.prefill)
    share = config.share_prefixes and not config.fixed_shapes
    return Limits(config.max_rows, rows, buckets.vision, share_prefixes=share)
