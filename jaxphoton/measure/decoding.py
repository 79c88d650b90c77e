"""Texts decoded by the engine's own scheduler and pipeline, without requests, threads and pictures around them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback

from jaxphoton.config import EngineConfig
from jaxphoton.constraints import automaton
from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.engine import programs as programs_of
from jaxphoton.engine.buckets import table_width
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.launch import PrefillPlan, StepPlan, limits_of
from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.engine.pages import PageAllocator
from jaxphoton.engine.pipeline import Launch, Pipeline
from jaxphoton.engine.programs import ProgramConfig
from jaxphoton.engine.request import Request, Sequence, sequence_of
from jaxphoton.engine.scheduler import Scheduler
from jaxphoton.measure import timing
from jaxphoton.models.protocol import Family, Prompt
from jaxphoton.requests.settings import Settings

FILLER = 20  # the id that every step generates


def scheduler_of(programs: Programs) -> Scheduler:
    return Scheduler(limits_of(programs.engine, programs.buckets), PageAllocator(programs.pages))


def pipeline_of(family: Family, scheduler: Scheduler, device: Any, depth: int, **hooks: Any) -> Pipeline:
    """A pipeline whose endings nobody waits for; `hooks` as `Pipeline` takes them."""
    return Pipeline(device, scheduler, family.readout, depth, on_finish=lambda sequence: None, **hooks)


def text_sequence(family: Family, page_size: int, ids: Iterable[int], grammar: str, max_tokens: int) -> Sequence:
    """A greedy sequence behind BOS and ids, without an image."""
    request = Request(Prompt(tuple(ids)), grammar, Settings(temperature=0.0, max_tokens=max_tokens, seed=0))
    return sequence_of(request, family, page_size)


def grammars(tokens: int, eos: int) -> dict[str, Grammar]:
    """`caption`: exactly `tokens` tokens, the last the stop token; `endless`: never stops; `free`: nor forbids."""
    filler = frozenset({FILLER})
    states = {str(i): State(allow=filler, moves={FILLER: str(i + 1)}) for i in range(tokens - 1)}
    states[str(tokens - 1)] = State(allow=frozenset({eos}), stop=frozenset({eos}))
    return {
        "caption": Grammar(states),
        "endless": Grammar({"on": State(allow=filler)}),
        "free": Grammar({"free": State()}),
    }


def tables_of(family: Family, tokens: int) -> automaton.TokenAutomaton:
    """The `grammars` of this module as tables."""
    return automaton.build(grammars(tokens, min(family.stop_ids)), family.vocab_size)


def compile_programs(params: Any, family: Family, rows: int, tokens: int, context: int) -> Programs:
    """Programs for `rows` texts of `tokens` tokens each and `context` positions, all prefilled at once."""
    prompt = max(1, context - tokens - 1)
    engine = EngineConfig(
        max_rows=rows,
        step_rows=(rows,),
        prefill_rows=(rows,),
        prefill_lengths=(min(128, prompt + 1),),
        vision=((1, 1),),
        kv_pages=1 + rows * table_width(context + 2, EngineConfig().page_size),
    )
    return Programs(params, family, engine, tables_of(family, tokens))


@dataclass(frozen=True, slots=True)
class Run:
    """One run of all requests.

    Attributes:
      steps: the decode steps in which all rows were alive or dying, in order.
      seconds: from the first token of the last request to the end of the last commit.
      zombie_fraction: share of all decode steps that only ended rows ran.
    """

    steps: tuple[LaunchMetrics, ...]
    seconds: float
    zombie_fraction: float

    @property
    def periods(self) -> list[float]:
        return [after.arrived - before.arrived for before, after in zip(self.steps, self.steps[1:], strict=False)]


def pool(runs: Many[Run], part: str) -> list[float]:
    """One part of every step of all runs, seconds; `period` is from one result to the next."""
    if part == "period":
        return [period for run in runs for period in run.periods]
    return [getattr(step, part) for run in runs for step in run.steps]


class DecodeBench:
    """Runs `rows` requests of exactly `tokens` tokens each behind a prompt of `context` - `tokens` ids.

    A request ends by its stop token, as a caption does: the device knows a step before the host. The programs have the
    `grammars` of this module; `host_work` is seconds of bookkeeping behind every step.
    """

    def __init__(self, programs: Programs, rows: int, tokens: int, context: int, host_work: float = 0):
        self.programs, self.rows, self.tokens, self.host_work = programs, rows, tokens, host_work
        self._prompt = max(1, context - tokens - 1)
        self.callback: CallbackDevice | None = None

    def run(self, depth: int, device: Device | None = None) -> Run:
        """All requests from their prefill to their end."""
        scheduler, launches = self._waiting("caption"), list[LaunchMetrics]()
        pipeline = pipeline_of(
            self.programs.family,
            scheduler,
            device or Device(self.programs),
            depth,
            on_event=self._work,
            on_metrics=launches.append,
            clock=time.perf_counter,
        )
        while not pipeline.idle:
            pipeline.tick()
        steps = [launch for launch in launches if launch.kind == "step"]
        ended = steps[-1].arrived + steps[-1].commit
        began = max(launch.arrived for launch in launches if launch.kind == "prefill")
        zombies = sum(step.zombies == step.rows for step in steps) / len(steps)
        return Run(tuple(step for step in steps if step.rows == self.rows), ended - began, zombies)

    def run_with_callbacks(self, depth: int) -> Run:
        """The same with tokens delivered by a host callback inside the step."""
        self.callback = self.callback or CallbackDevice(self.programs)
        return self.run(depth, self.callback)

    def device_seconds(self) -> tuple[float, float]:
        """(forward, sampling) of a step on the device alone: steps in a row, enqueued without reading any.

        Sampling is what a whole step takes more than its forward pass.
        """
        device = Device(self.programs)
        step = self.step_plan(device)
        seconds = timing.interleaved(
            {"step": lambda: device.step(step)[1], "forward": lambda: device.forward(step)[1][1]}
        )
        forward = min(seconds.values())
        return forward, seconds["step"] - forward

    def step_plan(self, device: Device | None = None) -> StepPlan:
        """The decode step of all rows behind their prompts, which a device has been given if there is one. It may be
        launched any number of times: nothing is committed."""
        scheduler = self._waiting("endless")
        while isinstance(plan := scheduler.plan(0), PrefillPlan):
            if device is not None:
                device.prefill(plan)
            for sequence in plan.sequences:
                sequence.inflight_refs = 1
        assert isinstance(plan, StepPlan)
        return plan

    def _waiting(self, grammar: str) -> Scheduler:
        """All sequences, waiting."""
        scheduler, family = scheduler_of(self.programs), self.programs.family
        ids = np.random.default_rng(0).integers(FILLER, family.vocab_size, self._prompt).tolist()
        for _ in range(self.rows):
            scheduler.add(text_sequence(family, self.programs.engine.page_size, ids, grammar, self.tokens + 8))
        return scheduler

    def _work(self, name: str, launch: Launch) -> None:
        """Bookkeeping that holds the interpreter, for every step that is committed."""
        if self.host_work and name == "commit_end" and launch.kind == "step":
            end = time.perf_counter() + self.host_work
            while time.perf_counter() < end:
                pass


class CallbackDevice(Device):
    """A device whose decode steps (of the largest bucket) hand their output to Python themselves: what the engine does
    not do, to show what it costs."""

    def __init__(self, compiled: Programs):
        super().__init__(compiled)
        self._compiled, self._tree = compiled, compiled.family.network.decoder(compiled.params)
        self._arrived: deque[np.ndarray] = deque()
        self._run = jax.jit(
            partial(_step_with_callback, self._arrived.append, compiled.program_config), donate_argnums=(1, 2)
        )

    def step(self, plan: StepPlan) -> tuple[np.ndarray, Any]:
        control = self._control.step(plan.sequences, self._compiled.buckets.step[-1])
        state = self.launch
        state.cache, state.rows, output = self._run(self._tree, state.cache, state.rows, control)
        return control, (output,)

    def fetch(self, output: Any) -> np.ndarray:
        if not isinstance(output, tuple):  # of a prefill
            return super().fetch(output)
        jax.block_until_ready(output)
        jax.effects_barrier()
        return self._arrived.popleft()


def _step_with_callback(deliver, config: ProgramConfig, params, cache, rows, control):
    cache, rows, output = programs_of.step(config, params, cache, rows, control)
    io_callback(lambda tokens: deliver(np.array(tokens)), None, output, ordered=True)
    return cache, rows, output
