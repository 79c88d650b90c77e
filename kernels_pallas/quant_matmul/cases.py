"""Shapes that tests and benchmarks share, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

INT8, FLOAT8 = "int8", "float8_e4m3fn"


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `quant_matmul`.

    Attributes:
      name: for reports.
      rows, size, width: B, N, K.
      group: columns of a group.
      zero: whether there are zero points.
      splits: None for the kernel's choice.
      dtype: of x.
      matrix_dtype, scale_dtype: of the rest.
    """

    name: str
    rows: int
    size: int = 96
    width: int = 128
    group: int = 64
    zero: bool = False
    splits: int | None = None
    dtype: str = "bfloat16"
    matrix_dtype: str = "int4"
    scale_dtype: str = "bfloat16"

    def bytes(self) -> int:
        """What one call must read and write at least."""
        stored = self.size * self.width * (4 if self.matrix_dtype == "int4" else 8) // 8
        factors = (1 + self.zero) * self.size * self.width // self.group * jnp.dtype(self.scale_dtype).itemsize
        return stored + factors + self.rows * (self.size + self.width) * jnp.dtype(self.dtype).itemsize

    def flops(self) -> int:
        return 2 * self.rows * self.size * self.width

    def abstract(self) -> dict[str, Any]:
        """Arguments of `quant_matmul`, arrays as shapes and dtypes, for compiling."""
        factors = jax.ShapeDtypeStruct((self.size, self.width // self.group), self.scale_dtype)
        return {
            "x": jax.ShapeDtypeStruct((self.rows, self.width), self.dtype),
            "matrix": jax.ShapeDtypeStruct((self.size, self.width), self.matrix_dtype),
            "scale": factors,
            "zero": factors if self.zero else None,
            "splits": self.splits,
        }

    def make(self, seed: int = 0) -> dict[str, Any]:
        """Arguments of `quant_matmul`: every stored number occurs, and the result is about 1."""
        random = np.random.default_rng(seed)
        arguments = self.abstract()
        x, matrix, scale, zero = (arguments[name] for name in ("x", "matrix", "scale", "zero"))
        most = {"int4": 8, INT8: 128}.get(self.matrix_dtype)
        if most:
            stored = random.integers(-most, most, matrix.shape)
        else:
            most, stored = 4, 2 * random.standard_normal(matrix.shape)
        factors = random.uniform(1, 3, scale.shape) / (most * self.width**0.5)
        arguments |= {
            "x": random.standard_normal(x.shape, np.float32).astype(x.dtype),
            "matrix": stored.astype(matrix.dtype),
            "scale": factors.astype(scale.dtype),
        }
        if zero is not None:
            arguments["zero"] = random.uniform(-most / 2, most / 2, zero.shape).astype(zero.dtype)
        return arguments


# For the interpreter, which copies whole operands about.
SMALL = (
    Case("one_row", 1, dtype="float32"),
    Case("rows", 5, zero=True, dtype="float32"),
    Case("uneven_parts", 3, width=320, group=32, splits=3, zero=True, dtype="float32"),
    Case("empty_part", 3, width=640, group=128, splits=4, dtype="float32"),
    Case("many_rows", 150, size=48, zero=True, dtype="float32"),
    Case("odd_sizes", 3, size=112, width=288, group=96, dtype="float32"),
    Case("int8", 5, zero=True, dtype="float32", matrix_dtype=INT8),
    Case("float8_by_row", 20, width=80, group=80, dtype="float32", matrix_dtype=FLOAT8, scale_dtype="float32"),
    Case("bfloat16_one_row", 1),
    Case("bfloat16_two_tiles", 20, size=128, width=512, group=128, zero=True, splits=2),
    Case("bfloat16_int8", 40, matrix_dtype=INT8),
)

# The products of a layer of Moondream 2, in a step and in the prefix of an image.
REAL = (
    *(Case(f"in_{rows}", rows, size=14336, width=2048, group=128) for rows in (1, 8, 32, 730)),
    *(Case(f"out_{rows}", rows, size=2048, width=10240, group=128) for rows in (8, 730)),
    Case("in_zero_8", 8, size=14336, width=2048, group=64, zero=True),
)
