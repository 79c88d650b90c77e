"""All that differs between jax 0.10, 0.11 and 0.12 in Pallas-Triton. Kernels import Triton through here alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as _triton

dot = _triton.dot
load = _triton.load
store = _triton.store


def pallas_call(
    kernel: Callable[..., None],
    *,
    name: str,
    grid: tuple[int, ...],
    out_shape: Any,
    warps: int,
    stages: int,
    interpret: bool,
    **arguments: Any,
) -> Callable[..., Any]:
    """`pl.pallas_call` on the Triton backend; in_specs, out_specs and the like go through unchanged.

    `stages` is the depth of Triton's software pipelines.
    """
    call = pl.pallas_call(
        kernel,
        grid=grid,
        out_shape=out_shape,
        compiler_params=_triton.CompilerParams(num_warps=warps, num_stages=stages),
        interpret=interpret,
        name=name,
        **arguments,
    )

    def run(*operands: jax.Array) -> Any:
        with jax.named_scope(name):
            return call(*operands)

    return run


def silence_deprecation() -> None:
    """From 0.11 on jax warns, when a kernel is lowered, that Pallas-Triton will leave it.

    Lowering happens long after the call, out of reach of a context manager; so the one message is filtered.
    """
    warnings.filterwarnings("ignore", message="The Pallas Triton backend is deprecated", category=DeprecationWarning)


silence_deprecation()
