"""Every kernel of `kernels_pallas` on its real cases, as programs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import jax

from scripts.cuda.gpus import Gpu
from scripts.cuda.programs import Program

FLOAT8_FROM = 89  # compute capability 8.9

Named = dict[str, Any]


def cases(chip: Gpu, op: str) -> list[Program]:
    """The real cases of one operation, one of each shape; float8 only where the chip has it."""
    function = getattr(importlib.import_module(f"kernels_pallas.{op}"), op)
    real = importlib.import_module(f"kernels_pallas.{op}.cases").REAL
    programs = {}
    for case in real:
        arrays, static = _arguments(function, case)
        if chip.capability >= FLOAT8_FROM or not any(array.dtype.itemsize == 1 for array in arrays.values()):
            key = str((sorted(arrays.items()), sorted(static.items())))
            programs.setdefault(key, _program(chip, f"{op}: {case.name}", function, arrays, static))
    return list(programs.values())


def _program(chip: Gpu, name: str, function: Callable[..., Any], arrays: Named, static: Named) -> Program:
    def kernel(arrays: Named) -> Any:
        return function(**arrays, **static, backend="triton", target=chip.target)

    return Program(name, kernel, (arrays,))


def _arguments(function: Callable[..., Any], case: Any) -> tuple[Named, Named]:
    """A case's arguments by name: (shapes of the arrays, static values)."""
    if hasattr(case, "abstract"):
        named = case.abstract() | ({"layer": case.layer} if hasattr(case, "layer") else {})
    else:
        positional, keywords = case.inputs()
        named = inspect.signature(function).bind(*positional, **keywords).arguments
    arrays = {n: jax.ShapeDtypeStruct(v.shape, v.dtype) for n, v in named.items() if hasattr(v, "shape")}
    return arrays, {name: value for name, value in named.items() if name not in arrays}
