"""The decode step: device time, ticks at both depths, and what it was compiled to."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxphoton.engine.device import Device
from jaxphoton.measure.decoding import DecodeBench, Run, pool
from jaxphoton.measure.pipeline_bench import PARTS
from jaxphoton.measure.timing import copy_bandwidth, device_seconds
from jaxphoton.platform import calm_interpreter
from scripts.cuda import thunks
from scripts.gpu.load import Load, compiled, row_counts, small_load

CALLBACK_ROWS = 8


def step(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Against the floor: bytes a step must read (weights without region heads, keys and values) over the measured copy
    bandwidth. `device_ms` is the step alone, many enqueued back to back; `idle_ms` what a pipelined tick adds to it.
    """
    load = Load(args.model, row_counts(args.model))
    yield {"context": load.context, "parameters": load.parameters, **graphs(), **load.faults()}
    bandwidth = copy_bandwidth()
    yield {"copy_gb_s": bandwidth / 1e9}
    table, ticks, device = [], [], Device(load.programs)
    for rows in row_counts(args.model):
        bench = load.bench(rows)
        plan = bench.step_plan(device)
        floor, seconds = load.step_bytes(rows) / bandwidth, device_seconds(lambda plan=plan: device.step(plan)[1])
        table.append(
            {"rows": rows, "floor_ms": 1e3 * floor, "device_ms": 1e3 * seconds, "floor_share": floor / seconds}
        )
        yield {"steps": table}
    calm_interpreter()
    for line in table:
        rows, alone = line["rows"], line["device_ms"]
        ticks.append({"rows": rows, "device_ms": alone, **_ticks(load.bench(rows), device, alone)})
        yield {"ticks": ticks}


def _ticks(bench: DecodeBench, device: Device, device_ms: float) -> dict[str, float]:
    """Depths take turns: 1 2 1 2."""
    runs: dict[int, list[Run]] = {1: [], 2: []}
    for depth in (1, 2, 1, 2):
        runs[depth].append(bench.run(depth, device))
    blocking, period = (1e3 * statistics.median(pool(runs[depth], "period")) for depth in (1, 2))
    return {
        "depth1_ms": blocking,
        "depth2_ms": period,
        "speedup": blocking / period,
        "idle_ms": period - device_ms,
        **{f"{part}_ms": 1e3 * statistics.median(pool(runs[2], part)) for part in PARTS},
    }


def callback(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """An 8-layer step at depth 2, its tokens copied to the host or delivered by a callback inside the program, by
    turns; `call_ms` is how long the launch kept the host."""
    bench = small_load(args.model, (CALLBACK_ROWS,), compiled).bench(CALLBACK_ROWS)
    deliveries = {"copy_to_host_async": bench.run, "io_callback": bench.run_with_callbacks}
    for run in deliveries.values():
        run(2)  # warm-up
    table = []
    for name, run in [*deliveries.items()] * 3:
        steps = run(2)
        spent = {"step_ms": steps.periods, "call_ms": [step.launch for step in steps.steps]}
        table.append({"delivery": name, **{part: 1e3 * statistics.median(s) for part, s in spent.items()}})
        yield {"deliveries": table}


def graphs() -> dict[str, Any]:
    """Whether each compiled step is one CUDA graph: the kinds of its top-level thunks, from XLA's dump."""
    files = sorted(Path(os.environ.get("GPU_CHECK_DUMP", "")).glob("*step*thunk_sequence_after_thunk_passes.txt"))
    found = []
    for file in files:
        listed = thunks.parse(file.read_text(encoding="utf-8"))
        always, branches = thunks.kernels(listed)
        top = thunks.top_level(listed)
        found.append({"kernels": always, "in_branches": branches, "top": " ".join(f"{k}:{n}" for k, n in top.items())})
    one = all(line["top"] == "kCommandBuffer:1" for line in found)
    return {"one_graph": one if found else "no dump", "thunks": found}
