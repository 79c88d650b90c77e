"""What the tests of several kernels compare with, and for what they lower."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np

from kernels_pallas.dispatch import Target

H200 = Target("cuda", 90, 132)
VOLTA = Target("cuda", 70, 80)
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


def error(actual: Any, expected: Any) -> float:
    """max |a - b| / max |b|; NaN if either has one."""
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape
    return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30))


def arrays_of(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays, what is static) of the arguments of an operation."""
    arrays = {name: value for name, value in arguments.items() if hasattr(value, "shape")}
    return arrays, {name: value for name, value in arguments.items() if name not in arrays}


def lowered(operation: Any, arguments: dict[str, Any], target: Target = H200) -> str:
    """What an operation becomes for a GPU that is not there."""
    arrays, static = arrays_of(arguments)
    call = jax.jit(lambda arrays: operation(**arrays, **static, backend="triton", target=target))
    with cuda_device():
        return call.trace(arrays).lower(lowering_platforms=("cuda",)).as_text()


def cuda_device() -> AbstractContextManager:
    """What jax from 0.11 on wants to know of the device when it lowers for one that is not there."""
    if not hasattr(jax.sharding, "AbstractDevice"):
        return nullcontext()
    device = jax.sharding.AbstractDevice("NVIDIA H200", 132, "cuda")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device))
