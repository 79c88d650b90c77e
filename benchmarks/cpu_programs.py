"""What the programs of an engine make of a CPU: python benchmarks/cpu_programs.py [--model moondream-0.5b].

Billions of operations a processor second of each program, with random weights, beside those of plain products of the
sizes that it consists of, by XLA and by NumPy. Operations are those that are needed: what a program computes besides
lowers its figure. Processor seconds and not the clock's, so that others may use the machine meanwhile.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from jaxphoton.engine.device import Device  # noqa: E402
from jaxphoton.layers.weight import Dense, matmul  # noqa: E402
from jaxphoton.measure.cost_model import step_cost  # noqa: E402
from jaxphoton.measure.timing import random_array  # noqa: E402
from jaxphoton.models.moondream.config import ModelConfig  # noqa: E402
from jaxphoton.platform import default_engine  # noqa: E402
from scripts.gpu.encode import programs  # noqa: E402
from scripts.gpu.load import Load  # noqa: E402

TURNS = 5
LEAST_FLOPS = 2e9  # of a turn: small products are repeated


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="moondream-0.5b", help="a packaged family, or small, for a test")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    engine = default_engine(jax.devices()[0], 13)
    buckets: dict[str, Any] = {"prefill_rows": engine.prefill_rows, "prefill_lengths": engine.prefill_lengths}
    load = Load(args.model, engine.step_rows, vision=((1, 1), (1, 10)), **buckets)
    print(f"{'':<44} {'GFLOP':>9} {'CPU ms':>9} {'GFLOP/s':>9}")
    for name, flops, launch in chain(_steps(load), _programs(load)):  # one by one: what is behind lets go of its device
        _line(name, flops, _seconds(launch))
    for rows, columns, out in _sizes(load.family.config):
        _products(rows, columns, out)


def _steps(load: Load) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    device = Device(load.programs)
    for rows in load.programs.buckets.step:
        cost = step_cost(load.family, load.dtype, rows, load.context, readout=False)
        plan = load.bench(rows).step_plan(device)
        yield f"step {rows}", cost.flops, lambda plan=plan: device.step(plan)[1]


def _programs(load: Load) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    for name, cost, launch in programs(load):
        if "XLA" not in name:
            yield name, cost.flops, launch


def _sizes(config: ModelConfig) -> list[tuple[int, int, int]]:
    """(rows, columns of the matrix, its rows): of a crop, of all crops, of a prefix, of steps."""
    vision, text = config.vision, config.text
    crop, width, inner = vision.image_tokens, vision.enc_dim, vision.enc_ff_dim
    crops = [(crop, width, inner), (crop, inner, width), ((1 + vision.max_crops) * crop, width, inner)]
    return crops + [(rows, text.dim, text.ff_dim) for rows in (text.prefix_attn, 8, 2, 1)]


def _products(rows: int, columns: int, out: int) -> None:
    x, w = random_array((rows, columns), jnp.float32, 1), random_array((out, columns), jnp.float32, 2)
    by_xla = jax.jit(lambda x, w: matmul(x, Dense(w)))
    plain_x, plain_w, flops = np.asarray(x), np.asarray(w).T, 2 * rows * columns * out
    times = max(1, int(LEAST_FLOPS // flops))
    forms = {"XLA": lambda: by_xla(x, w), "NumPy": lambda: plain_x @ plain_w}
    for name, product in forms.items():
        seconds = _seconds(lambda product=product: [product() for _ in range(times)]) / times
        _line(f"a product {rows} x {columns} x {out}, {name}", flops, seconds)


def _seconds(launch: Callable[[], Any]) -> float:
    """Processor seconds, the median of some turns."""
    jax.block_until_ready(launch())
    spent = []
    for _ in range(TURNS):
        before = _spent()
        jax.block_until_ready(launch())
        spent.append(_spent() - before)
    return statistics.median(spent)


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _line(name: str, flops: float, seconds: float) -> None:
    print(f"{name:<44} {flops / 1e9:9.2f} {1e3 * seconds:9.1f} {flops / 1e9 / max(seconds, 1e-9):9.1f}", flush=True)


if __name__ == "__main__":
    main()
