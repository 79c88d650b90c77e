"""The decode step of eight layers in every form that they can have."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from typing import Any

import jax

from jaxphoton.config import STEP_PARTS, step_parts
from jaxphoton.engine import programs as programs_of
from jaxphoton.measure.timing import interleaved
from jaxphoton.models.protocol import Family
from scripts.gpu.load import Load, Stepper, small_load
from scripts.gpu.variants import finish, lower
from scripts.models import is_small

ROWS = (1, 8, 32)
CLEAR = 0.99  # of XLA's time: what is not below it is no reason for kernels


def forms(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Device time of the forms of `EngineConfig.step_form`, which take turns, and for each number of rows the fastest:
    XLA's unless another is clearly faster."""
    rows = (1, 2) if is_small(args.model) else ROWS
    load, failed = small_load(args.model, rows), list[str]()
    stepper, table, chosen = Stepper(load.state()), dict[str, dict[str, Any]](), dict[str, str]()
    for count in rows:
        control = jax.device_put(load.control(count))
        compiled = _compile(load, control)
        failed += [f"{form}, {count} rows: {run}" for form, run in compiled.items() if isinstance(run, str)]
        launches = {
            form: stepper.launch(run, load.decoder, control)
            for form, run in compiled.items()
            if not isinstance(run, str)
        }
        seconds = interleaved(launches)
        for form, each in seconds.items():
            table.setdefault(form, {"form": form})[f"ms_{count}_rows"] = 1e3 * each
        chosen[str(count)] = fastest(seconds)
        yield {
            "device_kind": jax.devices()[0].device_kind,
            "layers": load.family.cache.n_layers,
            "forms": list(table.values()),
            "step_forms": dict(chosen),
            "failed": failed,
        }


def every_form(family: Family) -> list[str]:
    """By name, XLA's first and all kernels last; of Llama's layers a kernel has the attention alone."""
    if family.name != "moondream":
        return ["xla", "attention"]
    chosen = [parts for size in range(len(STEP_PARTS) + 1) for parts in combinations(STEP_PARTS, size)]
    names = {(): "xla", STEP_PARTS: "fused"}
    return [names.get(parts, "+".join(parts)) for parts in chosen]


def fastest(seconds: Mapping[str, float]) -> str:
    """Of the times of forms."""
    best = min(seconds, key=lambda form: seconds[form])
    return best if seconds[best] < CLEAR * seconds.get("xla", float("inf")) else "xla"


def _compile(load: Load, control: Any) -> dict[str, Any]:
    """Compiled step, or why there is none, by form."""
    config, shapes = load.programs.program_config, jax.eval_shape(load.programs.fresh_state)
    lowered = {}
    for form in every_form(load.family):
        kernels = dataclasses.replace(config.kernels, step=step_parts(form) or ())
        step = partial(programs_of.step, dataclasses.replace(config, kernels=kernels))
        lowered[form] = lower(step, load.decoder, None, shapes, control)
    with ThreadPoolExecutor() as pool:
        return dict(zip(lowered, pool.map(finish, lowered.values()), strict=True))
