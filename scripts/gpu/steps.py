"""The decode step: device time, ticks at both depths, and what it was compiled to."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from jaxphoton.measure.timing import copy_bandwidth, device_seconds
from jaxphoton.platform import calm_interpreter
from scripts.cuda import thunks
from scripts.gpu.load import HOST_PARTS, Load, Stepper, row_counts


def step(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Against the floor: bytes a step must read (weights without region heads, keys and values) over the measured copy
    bandwidth. `device_ms` is the step alone, many enqueued back to back; `idle_ms` what a pipelined tick adds to it.
    """
    load = Load(args.model, row_counts(args.model))
    yield {"context": load.context, "parameters": load.parameters, **graphs(), **load.faults()}
    bandwidth = copy_bandwidth()
    yield {"copy_gb_s": bandwidth / 1e9}
    table = []
    stepper = Stepper(load.state())
    for rows in row_counts(args.model):
        floor, seconds = load.step_bytes(rows) / bandwidth, step_seconds(load, stepper, rows)
        table.append(
            {"rows": rows, "floor_ms": 1e3 * floor, "device_ms": 1e3 * seconds, "floor_share": floor / seconds}
        )
        yield {"steps": table}
    del stepper  # its cache makes room for the next
    calm_interpreter()
    device = load.device()
    ticks = []
    for line in table:
        rows, alone = line["rows"], line["device_ms"]
        ticks.append({"rows": rows, "device_ms": alone, **_ticks(load, device, rows, alone)})
        yield {"ticks": ticks}


def step_seconds(load: Load, stepper: Stepper, rows: int) -> float:
    """Device seconds of a step, back to back."""
    programs, control = load.programs, load.control(rows)
    run = programs["step", len(control)]
    return device_seconds(stepper.launch(run, programs.text_params, jax.device_put(control)))


def _ticks(load: Load, device: Any, rows: int, device_ms: float) -> dict[str, float]:
    """Depths take turns: 1 2 1 2."""
    rounds: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for depth in (1, 2, 1, 2):
        rounds[depth].append(load.tick_costs(device, rows, depth))
    medians = {
        depth: {part: 1e3 * statistics.median(cost[part] for cost in costs) for part in ("period", *HOST_PARTS)}
        for depth, costs in rounds.items()
    }
    return {
        "depth1_ms": medians[1]["period"],
        "depth2_ms": medians[2]["period"],
        "speedup": medians[1]["period"] / medians[2]["period"],
        "idle_ms": medians[2]["period"] - device_ms,
        **{f"{part}_ms": medians[2][part] for part in HOST_PARTS},
    }


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
