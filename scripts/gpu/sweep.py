"""What may be tuned in paged attention, tried out."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

import jax

from jaxphoton.measure.timing import copy_bandwidth, device_seconds
from kernels_pallas.dispatch import Target
from kernels_pallas.paged_attention import cases, triton
from scripts.gpu import ops
from scripts.gpu.kernels import KERNEL_SECONDS, backend_here, parallel, short
from scripts.models import is_small

HEADS, SIZES, WARPS = (2, 4, 8), (2048, 4096, 8192), (2, 4, 8)
SPLITS = {8: (1, 2, 4, 8), 32: (1, 2, 4)}


def sweep(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Times of paged attention at 8 and 32 rows, best first; `default` marks what the kernel takes by itself."""
    bandwidth = copy_bandwidth()
    yield {"copy_gb_s": bandwidth / 1e9}
    small = is_small(args.model)
    for rows in (8, 32)[: 1 if small else 2]:
        case = cases.SMALL[0] if small else next(c for c in cases.REAL if c.name == f"moondream_{rows}")
        arrays, static = ops.arguments_of("paged_attention", case)
        arrays = ops.spread(arrays, static)
        default = triton.Tuning()
        grid = [(default, _default_splits(arrays, default))]
        if not small:
            tunings = (triton.Tuning(h, s, warps=w) for h, s, w in itertools.product(HEADS, SIZES, WARPS))
            grid += [point for point in itertools.product(tunings, SPLITS[rows]) if point != grid[0]]
        compiled = parallel(lambda point, arrays=arrays: _compile(arrays, *point), grid)
        table = []
        for (tuning, splits), run in zip(grid, compiled, strict=True):
            line = {"heads": tuning.block_heads, "size": tuning.block_size, "warps": tuning.warps, "splits": splits}
            if isinstance(run, str):
                table.append({**line, "us": float("inf"), "copy_share": 0.0, "default": run})
                continue
            seconds = device_seconds(lambda run=run, arrays=arrays: run(arrays), KERNEL_SECONDS) / ops.LINKS
            share = case.bytes() / seconds / bandwidth
            mark = "default" if (tuning, splits) == grid[0] else ""
            table.append({**line, "us": 1e6 * seconds, "copy_share": share, "default": mark})
        yield {f"{rows} rows": sorted(table, key=lambda line: line["us"])}


def _default_splits(arrays: ops.Arrays, tuning: triton.Tuning) -> int:
    cores = Target.of(jax.devices()[0]).cores
    return triton.choose_splits(arrays["q"], arrays["k_pool"], arrays["tables"], cores, tuning)


def _compile(arrays: ops.Arrays, tuning: triton.Tuning, splits: int) -> Any:
    """The compiled chain, or why there is none."""
    interpret = backend_here() == "interpret"

    def run(arrays: ops.Arrays, link: int) -> jax.Array:
        return triton.paged_attention(**arrays, layer=link, splits=splits, tuning=tuning, interpret=interpret)

    try:
        return jax.jit(ops.chain(run)).lower(arrays).compile()
    except Exception as error:  # too much shared memory, say
        return short(error)[:80]
