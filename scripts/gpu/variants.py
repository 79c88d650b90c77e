"""The decode step of eight layers in several forms."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.engine import programs as programs_of
from jaxphoton.engine import state as state_of
from jaxphoton.engine.programs import ProgramConfig
from jaxphoton.measure.timing import device_seconds, interleaved, pipelined
from jaxphoton.models.protocol import Kernels
from scripts.gpu.load import Load, Stepper, small_load
from scripts.models import is_small

ROWS = (8, 32)


def variants(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Device time of the step's variants, which take turns: separate or stacked matrices, and the kernels of attention,
    of sampling, and both replaced by what XLA makes of the reference."""
    rows = (2, 8) if is_small(args.model) else ROWS
    load, failed = small_load(args.model, rows), list[str]()
    stepper, table = Stepper(load.state()), dict[str, dict[str, Any]]()
    for count in rows:
        control = jax.device_put(load.control(count))
        compiled = _compile(load, control)
        failed += [f"{name}: {run}" for name, (run, _) in compiled.items() if isinstance(run, str)]
        launches = {
            name: stepper.launch(run, params, control)
            for name, (run, params) in compiled.items()
            if not isinstance(run, str)
        }
        for name, seconds in interleaved(launches).items():
            table.setdefault(name, {"variant": name})[f"ms_{count}_rows"] = 1e3 * seconds
        yield {"layers": load.family.cache.n_layers, "variants": list(table.values()), "failed": failed}


def flag(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The step as it is in a process with other XLA flags or environment variables (FLAGS in scripts/gpu_check.py):
    back to back, and pipelined with its tokens fetched; `call_ms` is what the call of the step keeps the host."""
    load = small_load(args.model, (8,))
    control = load.control(8)
    step = jax.jit(partial(programs_of.step, load.programs.program_config), donate_argnums=(1, 2))
    stepper, params = Stepper(load.state()), load.decoder
    on_device = stepper.launch(step, params, jax.device_put(control))
    yield {"device_ms": 1e3 * device_seconds(on_device)}
    launch = stepper.launch(step, params, control)
    period, call = pipelined(launch, lambda output: output.copy_to_host_async(), np.asarray, load.ticks)
    yield {"depth2_ms": 1e3 * period, "call_ms": 1e3 * call}


def _compile(load: Load, control: Any) -> dict[str, tuple[Any, Any]]:
    """(compiled step, or why there is none; its parameters) by name."""
    params, config = load.decoder, load.programs.program_config
    reference = dataclasses.replace(config, kernels=Kernels("reference", config.kernels.target))
    as_it_is = partial(programs_of.step, config)
    plain = {"attention": (state_of, "paged_attention"), "sampling": (programs_of, "masked_sample")}
    forms: dict[str, tuple[Callable, Any, Any]] = {
        "as it is": (as_it_is, params, None),
        "stacked matrices": (partial(_stacked_step, config), _stack(params), None),
        "all reference": (partial(programs_of.step, reference), params, None),
        **{f"{what}: reference": (as_it_is, params, place) for what, place in plain.items()},
    }
    shapes = jax.eval_shape(load.programs.fresh_state)
    lowered = {name: lower(*form, shapes, control) for name, form in forms.items()}
    with ThreadPoolExecutor() as pool:
        done = pool.map(finish, lowered.values())
        return {name: (run, forms[name][1]) for name, run in zip(forms, done, strict=True)}


def lower(function: Callable, params: Any, place: tuple[Any, str] | None, shapes: Any, control: Any) -> Any:
    """A step, lowered, or why it cannot be; the function of a module at `place` is replaced by its reference."""
    # A function of its own each time: jit would find the trace that was made without the replacement.
    step = jax.jit(lambda *arguments: function(*arguments), donate_argnums=(1, 2))
    try:
        if place is None:
            return step.lower(params, *shapes, control)
        with mock.patch.object(*place, _as_reference(getattr(*place))):
            return step.lower(params, *shapes, control)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]


def finish(lowered: Any) -> Any:
    """Compiled, or why not."""
    try:
        return lowered if isinstance(lowered, str) else lowered.compile()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]


def _as_reference(function: Callable) -> Callable:
    return lambda *arguments, **options: function(*arguments, **(options | {"backend": "reference"}))


def _stack(params: Any) -> tuple[Any, Any]:
    """(parameters without layers, their matrices stacked over layers)."""
    stacked = jax.jit(lambda layers: jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers))(params.text.layers)
    return dataclasses.replace(params, text=dataclasses.replace(params.text, layers=())), stacked


def _stacked_step(config: ProgramConfig, parameters: tuple[Any, Any], cache: Any, rows: Any, control: Any) -> Any:
    params, stacked = parameters
    layers = tuple(jax.tree.map(itemgetter(i), stacked) for i in range(config.family.cache.n_layers))
    whole = dataclasses.replace(params, text=dataclasses.replace(params.text, layers=layers))
    return programs_of.step(config, whole, cache, rows, control)
