"""What may be tuned in the attention of a step, tried out."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

import jax

from jaxphoton.measure.timing import copy_bandwidth, device_seconds
from kernels_pallas.dispatch import Target
from kernels_pallas.step_attention import cases, triton
from scripts.gpu import ops
from scripts.gpu.kernels import KERNEL_SECONDS, apart, backend_here, launcher, parallel, short
from scripts.models import is_small

NAME = "step_attention"
HEADS, SIZES, WARPS, RESIDENT = (1, 2, 4), (1024, 2048, 4096), (2, 4, 8), (4, 8)


def attention(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Times of the attention of a step at 8 and 32 rows, its combine included, best first; `default` marks what the
    kernel takes by itself. How many programs share a row's keys follows from `resident`."""
    bandwidth, small = copy_bandwidth(), is_small(args.model)
    yield {"copy_gb_s": bandwidth / 1e9}
    grid = [triton.Tuning()]
    if not small:
        options = itertools.product(HEADS, SIZES, WARPS, RESIDENT)
        tunings = (triton.Tuning(h, s, warps=w, resident=r) for h, s, w, r in options)
        grid += [tuning for tuning in tunings if tuning != grid[0]]
    for rows in (8, 32)[: 1 if small else 2]:
        case = cases.SMALL[0] if small else next(c for c in cases.REAL if c.name == f"moondream_{rows}")
        arrays, static = ops.arguments_of(NAME, case)
        arrays = jax.device_put(arrays)
        compiled = parallel(lambda tuning, a=arrays, s=static: _compile(a, s, tuning), grid)
        table = [
            _line(tuning, run, arrays, static, case.bytes() / bandwidth)
            for tuning, run in zip(grid, compiled, strict=True)
        ]
        table[0]["default"] = "default"
        yield {f"{rows} rows": sorted(table, key=lambda line: line["us"])}


def _line(tuning: Any, run: Any, arrays: ops.Arrays, static: dict[str, int], floor: float) -> dict[str, Any]:
    line = {"heads": tuning.block_heads, "size": tuning.block_size, "warps": tuning.warps, "resident": tuning.resident}
    line["splits"] = _splits(arrays, static, tuning)
    if isinstance(run, str):
        return {**line, "us": float("inf"), "copy_share": 0.0, "default": run}
    # Pools of its own, as it changes them.
    launch = launcher(NAME, run, ops.spread(arrays, static))
    seconds = device_seconds(launch, KERNEL_SECONDS) / ops.LINKS
    return {**line, "us": 1e6 * seconds, "copy_share": floor / seconds, "default": ""}


def _splits(arrays: ops.Arrays, static: dict[str, int], tuning: Any) -> int:
    cores = Target.of(jax.devices()[0]).cores
    return triton.choose_splits(arrays["u"], arrays["k_pool"], arrays["tables"], static["heads"], cores, tuning)


def _compile(arrays: ops.Arrays, static: dict[str, int], tuning: Any) -> Any:
    """The compiled chain, or why there is none."""
    options = {"heads": static["heads"], "splits": _splits(arrays, static, tuning), "tuning": tuning}
    options["interpret"] = backend_here() == "interpret"

    def run(arrays: ops.Arrays, link: int) -> Any:
        return triton.step_attention(**arrays, **options, layer=link)

    chained = ops.chain(run)
    try:
        shapes = jax.eval_shape(lambda arrays: ops.spread(arrays, static), arrays)
        compiled = jax.jit(lambda kept, changed: chained(kept | changed), donate_argnums=1)
        return compiled.lower(*apart(NAME, shapes)).compile()
    except Exception as error:  # too much shared memory, say
        return short(error)[:80]
