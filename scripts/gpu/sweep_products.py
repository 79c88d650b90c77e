"""What may be tuned in the products of a step, tried out."""

from __future__ import annotations

import argparse
import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import jax

from jaxphoton.measure.timing import copy_bandwidth, device_seconds
from kernels_pallas.dispatch import Target
from scripts.gpu import ops
from scripts.gpu.kernels import KERNEL_SECONDS, backend_here, parallel, short
from scripts.models import is_small

NAMES = ("input_product", "output_product")
ROWS, WARPS, STAGES, PROGRAMS = (16, 32, 64), (4, 8), (3, 4, 6), (1, 2, 4)


def products(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Times of the products at 8 and 32 rows, best first; `default` marks what a kernel takes by itself.

    `programs` are those of a multiprocessor: at least (input) or about (output, whose parts follow from it).
    """
    bandwidth, small = copy_bandwidth(), is_small(args.model)
    yield {"copy_gb_s": bandwidth / 1e9}
    for name in NAMES:
        cases, tuned = ops.cases_of(name, small)[1], importlib.import_module(f"kernels_pallas.{name}.triton")
        for case in cases if small else [case for case in cases if case.rows in (8, 32)]:
            arrays, static = ops.arguments_of(name, case)
            arrays = ops.spread(arrays, static)
            grid = [tuned.Tuning()]
            if not small:
                options = itertools.product(ROWS, WARPS, STAGES, PROGRAMS)
                grid += [tuned.Tuning(rows=r, warps=w, stages=s, programs=p) for r, w, s, p in options]
            compiled = parallel(lambda tuning, name=name, a=arrays, s=static: _compile(name, a, s, tuning), grid)
            table = [
                _line(tuning, run, arrays, case.bytes() / bandwidth) for tuning, run in zip(grid, compiled, strict=True)
            ]
            table[0]["default"] = "default"
            yield {f"{name} {case.rows} rows": sorted(table, key=lambda line: line["us"])}


def _line(tuning: Any, run: Any, arrays: ops.Arrays, floor: float) -> dict[str, Any]:
    line = {name: getattr(tuning, name) for name in ("rows", "warps", "stages", "programs")}
    if isinstance(run, str):
        return {**line, "us": float("inf"), "copy_share": 0.0, "default": run}
    seconds = device_seconds(lambda: run(arrays), KERNEL_SECONDS) / ops.LINKS
    return {**line, "us": 1e6 * seconds, "copy_share": floor / seconds, "default": ""}


def _compile(name: str, arrays: ops.Arrays, static: dict[str, int], tuning: Any) -> Any:
    """The compiled chain, or why there is none."""
    tuned = importlib.import_module(f"kernels_pallas.{name}.triton")
    options = {**static, "tuning": tuning, "interpret": backend_here() == "interpret"}
    cores = Target.of(jax.devices()[0]).cores

    def run(arrays: ops.Arrays, link: int) -> jax.Array:
        own = arrays | {"matrix": arrays["matrix"][link]}
        if name == "input_product":
            return tuned.input_product(**own, **options, cores=cores)
        splits = tuned.choose_splits(own["a"], own["matrix"], cores, tuning)
        return tuned.output_product(**own, **(options | {"splits": splits}))

    try:
        return jax.jit(ops.chain(run)).lower(arrays).compile()
    except Exception as error:  # too much shared memory, say
        return short(error)[:80]
