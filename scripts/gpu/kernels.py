"""Every kernel: right on all cases, and how fast on the real ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jaxphoton.measure.timing import copy_bandwidth, device_seconds, memory_limit
from scripts.gpu import ops
from scripts.models import family_named, is_small

# max |a - b| / max |b|, and for sampling the difference of log-probabilities.
LIMITS = {"float32": 1e-5, "bfloat16": 1e-2, "masked_sample": 1e-4}
KERNEL_SECONDS = 0.03  # for batches of single kernels, of which there are many
OTHER_TOKENS = 0.01  # share of rows that may be near ties
# Column of the table: (backend, calls in its chain). The reference takes long to compile.
COLUMNS = {"us": (None, ops.LINKS), "reference_us": ("reference", 2)}


def backend_here() -> str:
    return "interpret" if jax.devices()[0].platform == "cpu" else "triton"


def kernels(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Error against the reference in float32 on the same inputs, for every case; then times.

    A time is that of one call in a chain of them in one program, so that launching is no part of it; each reads a
    layer of its own. GB/s counts the bytes that must move (`Case.bytes`).
    """
    small, family = is_small(args.model), family_named(args.model)
    yield {"limits": LIMITS, "chain": {name: links for name, (_, links) in COLUMNS.items()}}
    found: dict[str, Any] = {"failed": []}
    timed: dict[str, list[Any]] = {}
    for name in ops.names_for(family):
        try:
            compared, timed[name] = ops.cases_of(name, small, family)
        except Exception as error:  # one operation missing must not hide the others
            found["failed"].append(f"{name}: {short(error)}")
            yield found
            continue
        found[f"{name} errors"] = lines = parallel(lambda case, name=name: _compare(name, case), compared)
        found["failed"] += [f"{name} {line['case']}: {line['verdict']}" for line in lines if line["verdict"] != "ok"]
        yield found
    bandwidth = copy_bandwidth()
    yield {"copy_gb_s": bandwidth / 1e9}
    for name, cases in timed.items():
        table: list[dict[str, Any]] = []
        for case, runs in zip(cases, parallel(lambda case, name=name: _compile(name, case), cases), strict=True):
            table.append(_time(name, case, runs, bandwidth))
            yield {f"{name} times": table}
        found["failed"] += [f"{name} {line['case']}: {line['error']}" for line in table if line["error"]]
    yield found


def parallel(function: Callable[[Any], Any], cases: list[Any]) -> list[Any]:
    """In threads, since most of it is compiling; few where memory is scarce."""
    limit = memory_limit()
    with ThreadPoolExecutor(12 if limit is not None and limit > 60e9 else 2) as pool:
        return list(pool.map(function, cases))


def _compare(name: str, case: Any) -> dict[str, Any]:
    dtype = getattr(case, "dtype", "float32")
    line = {"case": case.name, "dtype": dtype, "error": float("nan"), "other_tokens": 0}
    try:
        arrays, static = ops.arguments_of(name, case)
        arrays = jax.device_put(arrays)
        exact = ops.call(name, static, "reference")
        truth = ops.whole(name, jax.jit(lambda arrays: exact(ops.in_float32(arrays)))(arrays))
        out = ops.whole(name, jax.jit(ops.call(name, static, backend_here()))(arrays))
        needed = arrays.get("needed")
        line["error"], others = ops.error(out, truth, needed), ops.other_tokens(out, truth, needed)
        line["other_tokens"] = others
        good = line["error"] <= LIMITS.get(name, LIMITS[dtype]) and others <= OTHER_TOKENS * _rows(out) + (others == 1)
        line["verdict"] = "ok" if good else f"error {line['error']:.2e}, {others} other tokens"
    except Exception as error:
        line["verdict"] = short(error)
    return line


def _rows(out: Any) -> int:
    return len(out[0]) if isinstance(out, (tuple, list)) else len(out)


def _compile(name: str, case: Any) -> dict[str, Any]:
    """The compiled chain, or why there is none, by column of the table."""
    runs: dict[str, Any] = {}
    for column, (backend, links) in COLUMNS.items():
        try:
            arrays, static = ops.arguments_of(name, case)
            shapes = jax.eval_shape(lambda arrays, static=static: ops.spread(arrays, static), arrays)
            chained = ops.chain(ops.on_layer(name, static, backend or backend_here()), links)
            run = jax.jit(lambda kept, changed, chained=chained: chained(kept | changed), donate_argnums=1)
            runs[column] = run.lower(*apart(name, shapes)).compile()
        except Exception as error:
            runs[column] = short(error)
    return runs


def _time(name: str, case: Any, runs: dict[str, Any], bandwidth: float) -> dict[str, Any]:
    line: dict[str, Any] = {"case": case.name, "us": 0.0, "gb_s": 0.0, "copy_share": 0.0, "tflop_s": 0.0}
    line |= {"reference_us": 0.0, "error": ""}
    for column, run in runs.items():
        try:
            if isinstance(run, str):
                raise RuntimeError(run)
            arrays, static = ops.arguments_of(name, case)
            arrays = ops.spread(jax.device_put(arrays), static)
            launch = launcher(name, run, arrays)
            line[column] = 1e6 * device_seconds(launch, KERNEL_SECONDS) / COLUMNS[column][1]
        except Exception as error:
            line["error"] += f"{column}: {short(error)} "
    if line["us"]:
        rate = case.bytes() / (1e-6 * line["us"])
        line["gb_s"], line["copy_share"] = rate / 1e9, rate / bandwidth
        if hasattr(case, "flops"):
            line["tflop_s"] = case.flops() / (1e-6 * line["us"]) / 1e12
    return line


def apart(name: str, arrays: ops.Arrays) -> tuple[ops.Arrays, ops.Arrays]:
    """(what an operation reads, what it changes)."""
    changed = ops.CHANGED.get(name, ())
    return {key: x for key, x in arrays.items() if key not in changed}, {key: arrays[key] for key in changed}


def launcher(name: str, run: Callable[..., Any], arrays: ops.Arrays) -> Callable[[], Any]:
    """One launch after the other, each changing what the last one gave back."""
    kept, changed = apart(name, arrays)

    def launch() -> Any:
        out = run(kept, changed)
        if changed:
            changed.update(zip(changed, out[-len(changed) :], strict=True))
        return out

    return launch


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
