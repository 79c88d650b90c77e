"""What XLA makes of products with matrices of few bits by itself: why some have a kernel and others do not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxphoton.engine.gpus import Gpu
from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.weight import RowScaled, matmul
from scripts.cuda.programs import Program

ROWS, WIDTH = 14336, 2048  # of the first product of a layer of Moondream 2
TOKENS = (1, 8, 32, 730)


def plain_products(chip: Gpu) -> list[Program]:
    """With factors of rows, and with factors of groups."""
    shape, rows = jax.ShapeDtypeStruct, jax.ShapeDtypeStruct((ROWS,), jnp.float32)
    found = [
        _program(f"xla-rows {dtype}", RowScaled(shape((ROWS, WIDTH), dtype), rows))
        for dtype in ("int8", "float8_e4m3fn")
    ]
    for group in (128, 64):
        factors = shape((ROWS, WIDTH // group), jnp.bfloat16)
        weight = Grouped(shape((ROWS, WIDTH // 2), jnp.uint8), factors)
        found.append(_program(f"xla-groups int4 {group}", weight))
    return [program for programs in found for program in programs]


def _program(name: str, weight: Any) -> list[Program]:
    inputs = {tokens: jax.ShapeDtypeStruct((tokens, WIDTH), jnp.bfloat16) for tokens in TOKENS}
    return [Program(f"{name}, {tokens} rows", matmul, (x, weight), weights=weight) for tokens, x in inputs.items()]
