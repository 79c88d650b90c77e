"""Token delivery by a host callback inside the step: what the engine does not do, to show what it costs."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback

from jaxphoton.engine import programs
from jaxphoton.engine.device import Device, Programs
from jaxphoton.engine.programs import Family
from jaxphoton.engine.scheduler import StepPlan


class CallbackDevice(Device):
    """A device whose decode steps (of the largest bucket) hand their output to Python themselves."""

    def __init__(self, compiled: Programs):
        super().__init__(compiled)
        self._compiled = compiled
        self._arrived: deque[np.ndarray] = deque()
        self._run = jax.jit(partial(_step, self._arrived.append, compiled.family), donate_argnums=(1, 2))

    def step(self, plan: StepPlan) -> tuple[np.ndarray, Any]:
        control = self._control.step(plan.sequences, self._compiled.buckets.step[-1])
        self._cache, self._rows, output = self._run(self._compiled.text_params, self._cache, self._rows, control)
        return control, (output,)

    def fetch(self, output: Any) -> np.ndarray:
        if not isinstance(output, tuple):  # of a prefill
            return super().fetch(output)
        jax.block_until_ready(output)
        jax.effects_barrier()
        return self._arrived.popleft()


def _step(deliver, family: Family, params, cache, rows, control):
    cache, rows, output = programs.step(family, params, cache, rows, control)
    io_callback(lambda tokens: deliver(np.array(tokens)), None, output, ordered=True)
    return cache, rows, output
