"""`jax.profiler` around a run, with the engine's launches marked in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxphoton.engine.control import Masks
from jaxphoton.engine.launch import PrefillPlan, StepPlan
from jaxphoton.engine.pipeline import LaunchDevice
from jaxphoton.engine.request import Sequence
from jaxphoton.measure.timeline import PATIENCE_S

if TYPE_CHECKING:
    from jaxphoton.api import Model

# XLA leaves CUDA graphs while a profiler runs, and a profile without them is not that of the run.
KEEP_GRAPHS = "--xla_enable_command_buffers_during_profiling=true"


def keep_graphs() -> None:
    """Has XLA use CUDA graphs while profiling too; before the first use of a device, or it is too late.

    Only where a CUDA plugin of jax is installed: XLA ends a process whose XLA_FLAGS name a flag it does not know (those
    of jax 0.10.2 and 0.11.2 know this one). What the user has set stays. Programs compiled without the flag are
    compiled anew.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if KEEP_GRAPHS.partition("=")[0] not in flags and (
        find_spec("jax_cuda12_plugin") or find_spec("jax_cuda13_plugin")
    ):
        os.environ["XLA_FLAGS"] = f"{flags} {KEEP_GRAPHS}".strip()


@contextmanager
def profiling(model: Model, folder: str | Path) -> Iterator[None]:
    """Writes a profile of what is done inside to a folder, for XProf (TensorBoard) or Perfetto.

    Each decode step is a `StepTraceAnnotation`. Python functions are not traced: that would slow down the host, which
    is what is to be seen. Profiles grow quickly: seconds, not hours.

    Raises:
      RuntimeError: a profile is being taken already.
    """
    engine = model.engine
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    device = engine.pipeline.device
    with jax.profiler.trace(str(folder), profiler_options=options):
        engine.pipeline.device = AnnotatedDevice(device)
        try:
            yield
        finally:
            engine.drain(PATIENCE_S)
            engine.pipeline.device = device


class AnnotatedDevice:
    """Another device, with its calls marked in the profile; takes that one's place only while a profile is taken."""

    def __init__(self, device: LaunchDevice):
        self._device, self._steps = device, count()

    def prefill(self, plan: PrefillPlan) -> tuple[np.ndarray, Any]:
        with jax.profiler.TraceAnnotation("prefill"):
            return self._device.prefill(plan)

    def step(self, plan: StepPlan) -> tuple[np.ndarray, Any]:
        with jax.profiler.StepTraceAnnotation("decode", step_num=next(self._steps)):
            return self._device.step(plan)

    def forward(self, plan: StepPlan) -> tuple[np.ndarray, Any]:
        with jax.profiler.StepTraceAnnotation("decode", step_num=next(self._steps)):
            return self._device.forward(plan)

    def sample(self, plan: StepPlan, pending: Any, masks: Masks) -> Any:
        with jax.profiler.TraceAnnotation("sample"):
            return self._device.sample(plan, pending, masks)

    def encode_ahead(self, sequence: Sequence | None) -> None:
        self._device.encode_ahead(sequence)

    def fetch(self, output: Any) -> np.ndarray:
        with jax.profiler.TraceAnnotation("wait"):
            return self._device.fetch(output)

    def reset(self) -> None:
        self._device.reset()
