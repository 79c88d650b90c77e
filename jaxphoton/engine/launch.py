"""What is planned to be launched, within which limits; a launch under way, and the device it runs on. No jax."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from jaxphoton.config import EngineConfig
from jaxphoton.engine.buckets import Buckets
from jaxphoton.engine.control import Masks
from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.engine.request import Sequence
from jaxphoton.requests.errors import RequestFault, forget_frames


@dataclass(frozen=True, slots=True)
class PrefillPlan:
    """Sequences to prefill together, or one alone that has further image blocks; `images` are those whose image prefix
    is computed by this launch, `adapters` those whose adapter is put into its slot before, `masks` those whose next id
    the host restricts."""

    sequences: tuple[Sequence, ...]
    images: tuple[Sequence, ...]
    adapters: tuple[Sequence, ...] = ()
    masks: Mapping[Sequence, Any] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        """Pictures that it encodes."""
        return len(self.images) + sum(len(sequence.segments.blocks) for sequence in self.sequences)


def parts_of(plan: PrefillPlan) -> Iterator[slice | int]:
    """What is written behind the image prefixes, in order: runs of the ids, and numbers of further image blocks. A
    sequence has such only where it is alone; the last part is a run."""
    done = 0
    blocks = plan.sequences[0].segments.blocks if len(plan.sequences) == 1 else ()
    for number, (start, stop) in enumerate(blocks):
        if start > done:
            yield slice(done, start)
        yield number
        done = stop
    yield slice(done, None)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Sequences that each decode one token."""

    sequences: tuple[Sequence, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """Pages ran out: commit everything in flight, then plan again."""


Plan = PrefillPlan | StepPlan | Drain


@dataclass(frozen=True, slots=True)
class Limits:
    """What a launch may hold.

    Attributes:
      rows: sequences admitted at once.
      prefill_rows: sequences of one prefill.
      vision: pairs of how many images of how many crops in all fit one vision launch, ascending.
      bypass: how often a request may be overtaken before it blocks all others.
      share_prefixes: whether questions about one image share its pages.
      adapter_slots: adapters on the device at once.
    """

    rows: int
    prefill_rows: int
    vision: tuple[tuple[int, int], ...]
    bypass: int = 16
    share_prefixes: bool = True
    adapter_slots: int = 0

    def fits_vision(self, images: int, crops: int) -> bool:
        return images == 0 or any(images <= i and crops <= c for i, c in self.vision)


def limits_of(config: EngineConfig, buckets: Buckets) -> Limits:
    rows = max(rows for rows, _ in buckets.prefill)
    share = config.share_prefixes and not config.fixed_shapes
    return Limits(config.max_rows, rows, buckets.vision, share_prefixes=share, adapter_slots=config.adapter_slots)


class LaunchDevice(Protocol):
    """What a pipeline runs on: the real device, or one that completes when a test says so."""

    def prefill(self, plan: PrefillPlan) -> tuple[np.ndarray, Any]: ...
    def step(self, plan: StepPlan) -> tuple[np.ndarray, Any]: ...
    def forward(self, plan: StepPlan) -> tuple[np.ndarray, Any]: ...
    def sample(self, plan: StepPlan, pending: Any, masks: Masks) -> Any: ...
    def encode_ahead(self, sequence: Sequence | None) -> None: ...
    def fetch(self, output: Any) -> np.ndarray: ...
    def reset(self) -> None: ...


class DeviceError(RuntimeError):
    """A launch or its result failed on the device: what it holds can no longer be trusted."""


@dataclass(slots=True, eq=False)
class Launch:
    """A launch under way.

    Attributes:
      number: counts launches.
      kind: "prefill" or "step".
      owners: the snapshot its tokens are credited to: rows may change hands before the commit.
      plan: what was launched.
      control: the array that went up. The device may read it until the commit: never reused.
      output: the program's output on the device; what `sample` takes while `unsampled`.
      unsampled: whether the second part of a step in two is still to come.
      began: the clock when it was planned.
      spent: seconds of its parts so far.
      sampled: the clock when the second part of a step in two began; else 0.
    """

    number: int
    kind: Literal["prefill", "step"]
    owners: tuple[Sequence, ...]
    plan: PrefillPlan | StepPlan
    control: np.ndarray
    output: Any
    unsampled: bool
    began: float
    spent: dict[str, float]
    sampled: float = 0.0

    def metrics(self, slot: int, zombies: int, pages: int, began: float, arrived: float, now: float) -> LaunchMetrics:
        """What it has cost; its commit began at `began`, and `zombies` and `pages` are as of then."""
        return LaunchMetrics(
            number=self.number,
            kind=self.kind,
            rows=len(self.owners),
            zombies=zombies,
            images=self.plan.pictures if isinstance(self.plan, PrefillPlan) else 0,
            pages=pages,
            slot=slot,
            began=self.began,
            arrived=arrived,
            **self.spent,
            sampled=self.sampled,
            wait=arrived - began,
            commit=now - arrived,
        )


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    try:
        yield
    except RequestFault:
        raise
    except Exception as error:
        forget_frames(error)  # they hold the state that is about to be replaced: a pool does not fit twice
        raise DeviceError(f"{what} failed: {error}") from error
