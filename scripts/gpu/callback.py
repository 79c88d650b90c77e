"""Tokens delivered by a host callback inside the program, as nobody should: what it costs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from queue import Queue
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback

from jaxphoton.engine import programs
from jaxphoton.measure.timing import pipelined
from scripts.gpu.load import Stepper
from scripts.gpu.variants import small_load

ROWS, STEPS, PATIENCE = 8, 100, 30.0


def callback(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """An 8-layer step at depth 2, its tokens fetched by `copy_to_host_async` or delivered by `io_callback`, by turns;
    `call_ms` is how long the call of the step kept the host."""
    steps = 5 if args.model == "small" else STEPS
    load = small_load(args.model, (ROWS,))
    family, arrived = load.programs.family, Queue[np.ndarray]()
    stepper, control = Stepper(load.state()), load.control(ROWS)
    plain = partial(programs.step, family)

    def with_callback(params: Any, cache: Any, rows: Any, control: jax.Array) -> Any:
        cache, rows, output = plain(params, cache, rows, control)
        io_callback(arrived.put, None, output)
        return cache, rows, output

    def receive(output: jax.Array) -> None:
        arrived.get(timeout=PATIENCE)

    def ask(output: jax.Array) -> None:
        output.copy_to_host_async()

    def enqueuing(function: Callable[..., Any]) -> Callable[[], jax.Array]:
        return stepper.launch(jax.jit(function, donate_argnums=(1, 2)), load.programs.text_params, control)

    deliveries = {
        "copy_to_host_async": (enqueuing(plain), ask, np.asarray),
        "io_callback": (enqueuing(with_callback), lambda output: None, receive),
    }
    table = []
    for name, (launch, ask_for, take) in [*deliveries.items()] * 3:
        period, call = pipelined(launch, ask_for, take, steps)
        table.append({"delivery": name, "step_ms": 1e3 * period, "call_ms": 1e3 * call})
        yield {"deliveries": table}
