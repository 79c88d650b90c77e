"""What the engine does with its time: per launch as events, per request, and summed up; and who is told of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LaunchMetrics:
    """One launch from its plan to the end of its commit; seconds of the engine's clock.

    Attributes:
      number: counts launches.
      kind: "prefill" or "step".
      rows: sequences in it.
      zombies: those of them that had ended before it was read.
      images: pictures that it encoded.
      pages: of the pool held at its commit, shared prefixes included.
      slot: the pipeline's slot it went through.
      began: the clock when it was planned.
      arrived: the clock when its result was there, seen from the commit.
      plan, launch: planning it and enqueuing it, one after the other from `began` on.
      sample: building masks and enqueuing the second part of a step in two; else 0.
      sampled: the clock when that began; else 0.
      wait: from the start of its commit until `arrived`.
      commit: crediting its tokens, from `arrived` on.
    """

    number: int
    kind: Literal["prefill", "step"]
    rows: int
    zombies: int
    images: int
    pages: int
    slot: int
    began: float
    arrived: float
    plan: float
    launch: float
    sample: float
    sampled: float
    wait: float
    commit: float


@dataclass(frozen=True, slots=True)
class RequestMetrics:
    """One request; seconds of the engine's clock. `queue + prefill + decode` is `total`.

    Encoding the image and filling in the prompt are one launch and are not told apart.

    Attributes:
      submitted: the clock at its submission.
      prepare: decoding and cropping the image, before the submission and no part of the total.
      queue: from submission to the launch of its prefill.
      prefill: from there to its first token, the image's encoding included.
      decode: from there to its end.
      input_tokens: positions of the prompt, BOS and image included.
      cached_tokens: of those, positions found in the prefix cache.
      output_tokens: generated ids, the stop id included.
      set_back: how often it was recomputed, for want of pages or after a device error.
    """

    submitted: float
    prepare: float
    queue: float
    prefill: float
    decode: float
    total: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    set_back: int


@dataclass(slots=True)
class Totals:
    """Sums over all launches so far; `wait` is time in which the host had nothing to do but wait for the device."""

    steps: int = 0
    prefills: int = 0
    rows: int = 0
    zombies: int = 0
    zombie_steps: int = 0  # steps that only zombies ran
    seconds: dict[str, float] = field(
        default_factory=lambda: {"plan": 0.0, "launch": 0.0, "sample": 0.0, "wait": 0.0, "commit": 0.0}
    )

    def add(self, launch: LaunchMetrics) -> None:
        self.steps += launch.kind == "step"
        self.prefills += launch.kind == "prefill"
        self.rows += launch.rows
        self.zombies += launch.zombies
        self.zombie_steps += launch.kind == "step" and launch.zombies == launch.rows
        for part in self.seconds:
            self.seconds[part] += getattr(launch, part)


@dataclass(slots=True)
class Outcomes:
    """How requests have ended so far."""

    finished: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """A snapshot of an engine.

    Attributes:
      launches: sums over all launches.
      outcomes: how requests have ended.
      waiting, running: requests now.
      set_back: requests that lost their pages to older ones, so far.
      pages, pages_held: of the pool, and those of them in use or cached now.
      prefixes: images in the prefix cache now.
    """

    launches: Totals
    outcomes: Outcomes
    waiting: int
    running: int
    set_back: int
    pages: int
    pages_held: int
    prefixes: int


Observer = Callable[[Any], None]


class Observers:
    """Functions by what they are told of; told on the thread on which it happens, so they must return quickly.

    One that raises is logged and not called again: its fault must not reach the requests.
    """

    def __init__(self, *names: str):
        # Tuples, replaced as a whole: who tells needs no lock.
        self._told: dict[str, tuple[Observer, ...]] = dict.fromkeys(names, ())
        self._lock = threading.Lock()

    def add(self, **observers: Observer | None) -> ExitStack:
        """Adds functions until the returned handle is closed, or its `with` block is left; None adds nothing.

        Raises:
          TypeError: one is no function.
        """
        for name, observer in observers.items():
            if observer is not None and not callable(observer):
                raise TypeError(f"an observer of {name} must be a function, not {type(observer).__name__}")
        handle = ExitStack()
        for name, observer in observers.items():
            if observer is not None:
                with self._lock:
                    self._told[name] += (observer,)
                handle.callback(partial(self._remove, name, observer))
        return handle

    def tell(self, name: str, what: Any) -> None:
        for observer in self._told[name]:
            try:
                observer(what)
            except Exception:
                _log.exception("an observer of %s raised; it is not called again", name)
                self._remove(name, observer)

    def _remove(self, name: str, observer: Observer) -> None:
        with self._lock:
            told = self._told[name]
            place = next((place for place, each in enumerate(told) if each is observer), len(told))
            self._told[name] = told[:place] + told[place + 1 :]
