"""What this machine is and can do."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from jaxphoton.measure.host_bench import measure_host
from jaxphoton.measure.timing import copy_bandwidth, matmul_rate, memory_limit
from jaxphoton.models.registry import named_family

PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "numpy", "flax")


def device(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What this is, and how fast it copies and multiplies: the ceilings that the other parts are compared with."""
    here = jax.devices()[0]
    yield {
        "device": here.device_kind,
        "capability": str(getattr(here, "compute_capability", "")),
        "cores": getattr(here, "core_count", None),
        "memory_gb": (memory_limit() or 0) / 1e9,
        "driver": _driver(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "processors": os.cpu_count(),
    }
    yield {"copy_gb_s": copy_bandwidth() / 1e9}
    yield {"matmul_tflop_s": matmul_rate() / 1e12}
    # Twice: differences between parts that are smaller than this spread say nothing.
    yield {"copy_again_gb_s": copy_bandwidth() / 1e9, "matmul_again_tflop_s": matmul_rate() / 1e12}


def host(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Host microseconds a tick with programs that do nothing."""
    ticks, family = [], named_family("moondream2")
    for rows in (8, 64):
        ticks.append({"rows": rows, **dataclasses.asdict(measure_host(family, rows, 300))})
        yield {"ticks": ticks}


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: {error}"
    return done.stdout.strip() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
