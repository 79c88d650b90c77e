"""Shapes that tests and benchmarks share, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `tau_product`.

    Attributes:
      name: for reports.
      rows, size, width: B, N, Q.
      rest: columns of u behind q, k and v.
      dtype: of both.
    """

    name: str
    rows: int
    size: int = 8
    width: int = 96
    rest: int = 0
    dtype: str = "bfloat16"

    def bytes(self) -> int:
        """What one call must read and write at least, with one part."""
        return (self.rows + self.size) * self.width * jnp.dtype(self.dtype).itemsize + 4 * self.rows * self.size

    def flops(self) -> int:
        return 2 * self.rows * self.size * self.width

    def abstract(self) -> dict[str, Any]:
        """Arguments of `tau_product`, as shapes and dtypes, for compiling."""
        shapes = {"u": (self.rows, self.width + self.rest), "matrix": (self.size, self.width)}
        return {name: jax.ShapeDtypeStruct(shape, self.dtype) for name, shape in shapes.items()}

    def make(self, seed: int = 0) -> dict[str, Any]:
        """Arguments of `tau_product`; what it does not read of u is NaN."""
        random = np.random.default_rng(seed)
        u = random.standard_normal((self.rows, self.width + self.rest), np.float32)
        u[:, self.width :] = np.nan
        matrix = random.standard_normal((self.size, self.width), np.float32) * self.width**-0.5
        return {"u": u.astype(self.dtype), "matrix": matrix.astype(self.dtype)}


# For the interpreter, which copies whole operands about.
SMALL = (
    Case("one_row", 1, rest=32, dtype="float32"),
    Case("rows", 5, rest=32, dtype="float32"),
    Case("nothing_behind", 3, dtype="float32"),
    Case("two_tiles", 20, size=16, dtype="float32"),
    Case("odd_sizes", 3, size=42, width=80, rest=7, dtype="float32"),
    Case("most_rows", 32, size=64, width=48, dtype="float32"),
    Case("bfloat16_one_row", 1, size=64, width=384, rest=16),
    Case("bfloat16", 8, size=64, width=384, rest=16),
    Case("bfloat16_two_tiles", 20),
)

REAL = tuple(Case(f"moondream3_{rows}", rows, size=64, width=6144, rest=8192) for rows in (1, 8, 32))
