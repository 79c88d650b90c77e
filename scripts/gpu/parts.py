"""`python -m scripts.gpu.parts NAME`: one part of the GPU check; the last line printed is a JSON object."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp

from scripts.gpu.load import CONTEXT, Load, copy_bandwidth, median_time

ROWS = (1, 8, 32)


def device(args: argparse.Namespace) -> dict:
    """What this is, and how fast it copies and multiplies."""
    here = jax.devices()[0]
    size = 8192 if here.platform != "cpu" else 512
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    seconds = median_time(jax.jit(lambda a: a @ a), a)
    return {
        "device": here.device_kind,
        "jax": jax.__version__,
        "copy_gb_s": copy_bandwidth() / 1e9,
        "matmul_tflop_s": 2 * size**3 / seconds / 1e12,
    }


def verify(args: argparse.Namespace) -> dict:
    """Golden data in float32 on this device; the packaged set if none is given."""
    from jaxphoton.verify.golden import open_golden
    from jaxphoton.verify.run import packaged_golden, run_model

    directory, weights = (args.goldens, None) if args.goldens else packaged_golden()
    cases, failed, worst = 0, [], 0.0
    for model in open_golden(directory, weights):
        if "md3" in model.name:
            continue
        for report in run_model(model, jnp.float32):
            cases += 1
            worst = max(worst, report.max_error)
            failed += [] if report.passed else [f"{model.name} {report.name}: {report.max_error:.2e} {report.faults}"]
    return {"cases": cases, "failed": failed, "worst_error": worst}


def step(args: argparse.Namespace) -> dict:
    """Decode ticks with random weights at depth 1 and 2 against the floor of bytes over copy bandwidth."""
    bandwidth, load, table = copy_bandwidth(), Load(args.model, ROWS), []
    for rows in ROWS:
        blocking, pipelined = (load.tick_seconds(rows, depth) for depth in (1, 2))
        floor = load.step_bytes(rows) / bandwidth
        table.append(
            {
                "rows": rows,
                "floor_ms": 1e3 * floor,
                "depth1_ms": 1e3 * blocking,
                "depth2_ms": 1e3 * pipelined,
                "speedup": blocking / pipelined,
                "floor_share": floor / pipelined,
            }
        )
    return {"context": CONTEXT, "copy_gb_s": bandwidth / 1e9, "parameters": load.parameters, "ticks": table}


def graph(args: argparse.Namespace) -> dict:
    """Whether the compiled step is one CUDA graph: the kinds of its top-level thunks, from XLA's dump."""
    Load(args.model, (8,))
    files = sorted(Path(os.environ["GPU_CHECK_SCRATCH"]).glob("*step*thunk_sequence_after_thunk_passes.txt"))
    kinds = {file.name: dict_of_kinds(file.read_text(encoding="utf-8")) for file in files}
    one = bool(kinds) and all(set(k) == {"kCommandBuffer"} and sum(k.values()) == 1 for k in kinds.values())
    return {"one_graph": one, "thunks": kinds}


def dict_of_kinds(text: str) -> dict[str, int]:
    """Thunk kinds of the least indented lines, counted."""
    found = [
        (len(line) - len(line.lstrip()), kind)
        for line in text.splitlines()
        for kind in re.findall(r"\bk[A-Z]\w+", line)[:1]
    ]
    top = min((indent for indent, _ in found), default=0)
    kinds = [kind for indent, kind in found if indent == top]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def host(args: argparse.Namespace) -> dict:
    """Host microseconds a tick with programs that do nothing."""
    from jaxphoton.measure.host_bench import measure_host

    return {"ticks": [{"rows": rows, **dataclasses.asdict(measure_host(rows, 300))} for rows in (8, 64)]}


def main() -> None:
    parts = {part.__name__: part for part in (device, verify, step, graph, host)}
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=parts)
    parser.add_argument("--model", default="moondream2")
    parser.add_argument("--goldens", type=Path)
    args = parser.parse_args()
    print(json.dumps(parts[args.part](args)))


if __name__ == "__main__":
    main()
