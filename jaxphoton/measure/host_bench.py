"""What one tick of the engine costs the host: planning, launching, committing, with programs that do nothing.

The real scheduler, control packing, jit dispatch and token reading run; the program takes as many arrays as a
step of the model does (that is what a dispatch costs) and returns at once.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.constraints import automaton
from jaxphoton.engine.buckets import table_width
from jaxphoton.engine.control import RUNNING, ControlPacker
from jaxphoton.engine.launch import Limits, PrefillPlan, StepPlan
from jaxphoton.engine.pages import PageAllocator
from jaxphoton.engine.request import Sequence
from jaxphoton.engine.scheduler import Scheduler
from jaxphoton.engine.state import PagedCache, RowState
from jaxphoton.measure.decoding import pipeline_of, text_sequence
from jaxphoton.models.protocol import Family

PAGE_SIZE = 16
PROMPT_IDS = 30
WARM_UP_TICKS = 20


@dataclass(frozen=True, slots=True)
class HostCost:
    """Medians in microseconds a tick; a tick is one plan, one launch and one commit.

    Beside a busy thread most ticks are undisturbed and a few wait long: the mean and the 99th percentile tell.
    """

    tick_us: float
    plan_us: float
    launch_us: float
    commit_us: float
    tick_mean_us: float
    tick_p99_us: float


class NoOpDevice:
    """Launches a program that does nothing, with all the arguments of a real step."""

    def __init__(self, family: Family, rows: int):
        self._automaton, readout = automaton.build(family.grammars, family.vocab_size), family.readout
        self._control = ControlPacker(rows, table_width(family.max_context, PAGE_SIZE), 0, readout)
        shapes = family.network.decoder(family.network.abstract(jnp.bfloat16))
        self._params = [jnp.zeros(1, leaf.dtype) for leaf in jax.tree.leaves(shapes)]
        self._cache = PagedCache(jnp.zeros(1), jnp.zeros(1))
        self._rows = RowState.zeros(rows, readout.fed if readout else 0)
        # Token 20, RUNNING, nothing carried: no sequence ends.
        line = (20, RUNNING, 0, *([-1] * (readout.columns if readout else 0)))
        self._run = jax.jit(partial(_no_op, line), donate_argnums=(1, 2), keep_unused=True)
        self._batch = rows

    def prefill(self, plan: PrefillPlan) -> tuple[np.ndarray, Any]:
        control = self._control.prefill(plan.sequences, 0, 1, self._batch, PROMPT_IDS + 1, self._automaton)
        return self._launch(control)

    def step(self, plan: StepPlan) -> tuple[np.ndarray, Any]:
        return self._launch(self._control.step(plan.sequences, self._batch))

    def encode_ahead(self, sequence: Sequence | None) -> None: ...

    def fetch(self, output: Any) -> np.ndarray:
        return np.asarray(output)

    def _launch(self, control: np.ndarray) -> tuple[np.ndarray, Any]:
        self._cache, self._rows, output = self._run(self._params, self._cache, self._rows, control)
        output.copy_to_host_async()
        return control, output


def _no_op(line: tuple[int, ...], params: Any, cache: PagedCache, rows: RowState, control: jax.Array):
    return cache, rows, jnp.broadcast_to(jnp.array(line, jnp.int32)[None], (control.shape[0], len(line)))


@contextmanager
def busy_thread() -> Iterator[None]:
    """Another thread that computes in Python all the while, as a user's own code might."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(10_000))

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure_host(family: Family, rows: int, ticks: int) -> HostCost:
    """The cost of `ticks` decode ticks of `rows` text sequences of a model at depth 2."""
    width = table_width(family.max_context, PAGE_SIZE)
    scheduler = Scheduler(Limits(rows, rows, ((1, 1),)), PageAllocator(1 + rows * width))
    device: Any = NoOpDevice(family, rows)  # of a launch device it has what text needs
    pipeline = pipeline_of(family, scheduler, device, depth=2)
    for _ in range(rows):
        scheduler.add(text_sequence(family, PAGE_SIZE, range(20, 20 + PROMPT_IDS), "text", family.max_context))
    timers = _Timers()
    scheduler.plan = timers.around("plan", scheduler.plan)  # type: ignore[method-assign]
    device.step = timers.around("launch", device.step)  # type: ignore[method-assign]
    pipeline.commit_oldest = timers.around("commit", pipeline.commit_oldest)  # type: ignore[method-assign]
    for _ in range(WARM_UP_TICKS):
        pipeline.tick()
    timers.spent = {name: [] for name in timers.spent}
    tick = timers.around("tick", pipeline.tick)
    for _ in range(ticks):
        tick()
    medians = {f"{name}_us": 1e6 * statistics.median(spent) for name, spent in timers.spent.items()}
    whole = timers.spent["tick"]
    p99 = statistics.quantiles(whole, n=100)[98]
    return HostCost(**medians, tick_mean_us=1e6 * statistics.mean(whole), tick_p99_us=1e6 * p99)


class _Timers:
    def __init__(self):
        self.spent: dict[str, list[float]] = {}

    def around(self, name: str, function):
        self.spent[name] = []

        def timed(*args):
            start = time.perf_counter()
            result = function(*args)
            self.spent[name].append(time.perf_counter() - start)
            return result

        return timed
