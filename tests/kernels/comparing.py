"""What the tests of several kernels compare with, and for what they lower."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from kernels_pallas.dispatch import Target

Run = Callable[[dict[str, Any], str], Any]  # (arguments, backend) -> a line a row of the batch

H200 = Target("cuda", 90, 132)
VOLTA = Target("cuda", 70, 80)
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


def error(actual: Any, expected: Any) -> float:
    """max |a - b| / max |b|; NaN if either has one."""
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape
    return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30))


def assert_company_does_not_matter(run: Run, arguments: dict[str, Any], *by_row: str) -> None:
    """Rows in another order give the same lines in that order; `by_row` are the arguments with a line a row."""
    order = np.random.default_rng(3).permutation(len(arguments[by_row[0]]))
    shuffled = arguments | {name: arguments[name][order] for name in by_row}
    np.testing.assert_array_equal(run(shuffled, "interpret"), np.asarray(run(arguments, "interpret"))[order])


def assert_broken_row_is_alone(run: Run, arguments: dict[str, Any], name: str, backend: str) -> None:
    """NaN in a row of an argument is NaN in all of its line, and nowhere else."""
    broken = arguments | {name: arguments[name].copy()}
    broken[name][2] = np.nan
    expected, actual = (np.asarray(run(each, backend)) for each in (arguments, broken))
    others = np.arange(len(expected)) != 2
    assert np.all(np.isnan(actual[2]))
    np.testing.assert_array_equal(actual[others], expected[others])


def arrays_of(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays, what is static) of the arguments of an operation."""
    arrays = {name: value for name, value in arguments.items() if hasattr(value, "shape")}
    return arrays, {name: value for name, value in arguments.items() if name not in arrays}


@cache
def compiled(operation: Any, backend: str, **static: Any) -> Callable[..., Any]:
    """An operation with its static arguments, compiled once for all tests that give it the same shapes."""
    return jax.jit(partial(operation, **static, backend=backend))


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
