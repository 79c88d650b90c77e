"""Shapes that tests and benchmarks share, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `output_product`.

    Attributes:
      name: for reports.
      rows, size: B, D.
      attended, hidden: A, F.
      before: Q, columns of u before those of the MLP.
      splits: S; None for the kernel's choice.
      dtype: of a, u and the matrix.
      stored: 8-bit dtype of a matrix with factors of its rows; None for `dtype`.
    """

    name: str
    rows: int
    size: int = 64
    attended: int = 32
    hidden: int = 128
    before: int = 96
    splits: int | None = None
    dtype: str = "bfloat16"
    stored: str | None = None

    def bytes(self) -> int:
        """What one call must read and write at least, with one part."""
        width = self.attended + self.hidden
        numbers = self.rows * width * jnp.dtype(self.dtype).itemsize + 4 * self.rows * self.size
        of_matrix = self.size * width * jnp.dtype(self.stored or self.dtype).itemsize
        return numbers + of_matrix + (4 * self.size if self.stored else 0)

    def flops(self) -> int:
        return 2 * self.rows * self.size * (self.attended + self.hidden)

    def abstract(self) -> dict[str, Any]:
        """Arguments of `output_product`, arrays as shapes and dtypes, for compiling."""
        shapes = {
            "a": (self.rows, self.attended),
            "u": (self.rows, self.before + self.hidden),
            "matrix": (self.size, self.attended + self.hidden),
        }
        arrays = {name: jax.ShapeDtypeStruct(shape, self.dtype) for name, shape in shapes.items()}
        if self.stored:
            arrays["matrix"] = jax.ShapeDtypeStruct(shapes["matrix"], self.stored)
            arrays["scale"] = jax.ShapeDtypeStruct((self.size,), jnp.float32)
        return {**arrays, "splits": self.splits}

    def make(self, seed: int = 0) -> dict[str, Any]:
        """Arguments of `output_product`; what it does not read of u is NaN."""
        random = np.random.default_rng(seed)
        arguments = self.abstract()
        for name in ("a", "u", "matrix"):
            values = random.standard_normal(arguments[name].shape, np.float32)
            if name == "matrix":
                values *= 20 if self.stored else (self.attended + self.hidden) ** -0.5
            if name == "u":
                values[:, : self.before] = np.nan
            arguments[name] = values.astype(arguments[name].dtype)
        if self.stored:
            arguments["scale"] = random.uniform(0.5, 2, self.size).astype(np.float32) / 256
        return arguments


# For the interpreter, which copies whole operands about.
SMALL = (
    Case("one_row", 1, dtype="float32"),
    Case("rows", 5, splits=2, dtype="float32"),
    Case("one_part", 16, splits=1, dtype="float32"),
    Case("uneven_parts", 3, splits=3, dtype="float32"),
    Case("empty_part", 3, attended=64, hidden=256, splits=4, dtype="float32"),
    Case("two_tiles", 20, splits=2, dtype="float32"),
    Case("odd_sizes", 3, size=80, attended=48, hidden=112, before=16, dtype="float32"),
    Case("nothing_before", 3, before=0, dtype="float32"),
    Case("int8", 5, splits=2, dtype="float32", stored="int8"),
    Case("float8", 3, dtype="float32", stored="float8_e4m3fn"),
    Case("bfloat16_int8", 8, attended=128, hidden=512, stored="int8"),
    Case("bfloat16_one_row", 1),
    Case("bfloat16", 8, attended=128, hidden=512, before=384),
    Case("bfloat16_two_tiles", 20, splits=2),
)

REAL = tuple(Case(f"moondream_{rows}", rows, size=2048, attended=2048, hidden=8192, before=6144) for rows in (1, 8, 32))
