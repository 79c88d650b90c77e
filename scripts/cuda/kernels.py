"""Every kernel of `kernels_pallas` on its real cases, as programs."""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp

from jaxphoton.engine.gpus import Gpu
from jaxphoton.engine.state import PagedCache
from scripts.cuda.programs import Program
from scripts.gpu import ops

FLOAT8_FROM = 89  # compute capability 8.9

Named = dict[str, Any]


def cases(chip: Gpu, op: str) -> list[Program]:
    """The real cases of one operation, one of each shape; float8 only where the chip has it."""
    real = importlib.import_module(f"kernels_pallas.{op}.cases").REAL
    programs = {}
    for case in real:
        made, static = ops.arguments_of(op, case, shapes=True)
        arrays = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in made.items()}
        if chip.capability >= FLOAT8_FROM or not any(array.dtype == jnp.float8_e4m3fn for array in arrays.values()):
            key = str((sorted(arrays.items()), sorted(static.items())))
            programs.setdefault(key, _program(chip, op, case.name, arrays, static))
    return list(programs.values())


def _program(chip: Gpu, op: str, case: str, arrays: Named, static: Named) -> Program:
    """What the operation changes is donated, and must be updated in place as keys and values are by a step."""
    changed = {name: arrays[name] for name in ops.CHANGED.get(op, ())}
    kept = {name: array for name, array in arrays.items() if name not in changed}

    def kernel(kept: Named, changed: Named) -> Any:
        return ops.function_of(op)(**kept, **changed, **static, backend="triton", target=chip.target)

    pool = PagedCache(*changed.values()) if changed else None
    layers = len(arrays["k_pool"]) if changed else 0
    return Program(f"{op}: {case}", kernel, (kept, changed), (1,), layers=layers, pool=pool)
