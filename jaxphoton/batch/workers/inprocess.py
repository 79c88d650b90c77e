"""A model in this process that answers the images of a run, and what the user of a run says about its engine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxphoton.config import EngineConfig
from jaxphoton.engine.memory import whole_pages
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.submitting import OnEvent, Pending

if TYPE_CHECKING:  # which imports jax
    from jaxphoton.api import Model
    from jaxphoton.engine.metrics import LaunchMetrics


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Attributes:
    rows: sequences decoded at once.
    depth, image_workers, image_timeout, host_masks, adapter_slots, adapter_rank: as in `EngineConfig`.
    deterministic: an image's result does not depend on what runs beside it.
    """

    rows: int | None = None
    depth: int | None = None
    image_workers: int | None = None
    deterministic: bool = False
    image_timeout: float | None = None
    host_masks: bool | None = None
    adapter_slots: int | None = None
    adapter_rank: int | None = None

    def applied(self, engine: EngineConfig, max_context: int) -> EngineConfig:
        """The engine's settings with these changes, for a model of so many positions; what is None stays."""
        names = ("depth", "image_workers", "image_timeout", "host_masks", "adapter_slots", "adapter_rank")
        changes: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        engine = dataclasses.replace(engine if self.rows is None else engine.with_rows(self.rows), **changes)
        if not self.deterministic:
            return engine
        # So many pages that no request is ever set back, and computed again in other company.
        return dataclasses.replace(engine, fixed_shapes=True, kv_pages=whole_pages(max_context, engine))


class LocalAnswerer:
    """Answers with one model, and keeps account of its device's time.

    Attributes:
      model: which answers.
      stages: seconds so far: the device "encoded and prefilled" and "decoded", "waited for images" to be read and
        prepared, or "idled" while the host planned.
      compiling: seconds that `start` took.
    """

    def __init__(self, model: Model):
        self.model = model
        names = ("waiting for images", "encode and prefill", "decode", "idle")
        self.stages: dict[str, float] = dict.fromkeys(names, 0.0)
        self.compiling = self._last = 0.0

    def start(self) -> None:
        """Compiles the programs (or finds them on disk) before any image waits for them; see `Model.start`."""
        began = time.monotonic()
        self.model.start()
        self.compiling = time.monotonic() - began

    @property
    def held(self) -> dict[str, int]:
        """What requests hold now: "rows" that there are, "running" and "waiting" requests, "pages" that there are, and
        "pages_held"."""
        engine = self.model.engine
        now = engine.metrics()
        return {
            "rows": engine.config.max_rows,
            "running": now.running,
            "waiting": now.waiting,
            "pages": now.pages,
            "pages_held": now.pages_held,
        }

    def answer(self, jobs: Iterable[Job]) -> Iterator[Answer]:
        with self.model.observe(launches=self._count):
            yield from self.model.answer(jobs)

    def submit(self, image: Any, ask: Ask, on_event: OnEvent | None = None, wait: bool = False) -> Pending:
        """Hands over one ask; see `requests.submitting`."""
        return self.model.submit(image, ask, on_event, wait)

    def _count(self, launch: LaunchMetrics) -> None:
        """The device works on a launch from when it was enqueued, or the one before was done, until it arrives."""
        enqueued = launch.began + launch.plan
        if self._last:
            self.stages["waiting for images"] += max(0.0, launch.began - self._last)
            self.stages["idle"] += max(0.0, enqueued - max(launch.began, self._last))
        stage = "decode" if launch.kind == "step" else "encode and prefill"
        self.stages[stage] += max(0.0, launch.arrived - max(self._last, enqueued))
        self._last = launch.arrived
