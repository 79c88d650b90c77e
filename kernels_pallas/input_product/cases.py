"""Shapes that tests and benchmarks share, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LAYERS = 2  # of biases


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `input_product`.

    Attributes:
      name: for reports.
      rows, size, width: B, N, K.
      gelu_from: where gelu begins; None for nowhere.
      dtype: of everything.
      stored: 8-bit dtype of a matrix with factors of its rows; None for `dtype`.
    """

    name: str
    rows: int
    size: int = 96
    width: int = 64
    gelu_from: int | None = 40
    dtype: str = "bfloat16"
    stored: str | None = None

    def bytes(self) -> int:
        """What one call must read and write at least."""
        numbers = self.rows * self.width + (self.rows + 1) * self.size
        return numbers * jnp.dtype(self.dtype).itemsize + self._matrix_bytes()

    def _matrix_bytes(self) -> int:
        of_matrix = self.size * self.width * jnp.dtype(self.stored or self.dtype).itemsize
        return of_matrix + (4 * self.size if self.stored else 0)

    def flops(self) -> int:
        return 2 * self.rows * self.size * self.width

    def abstract(self) -> dict[str, Any]:
        """Arguments of `input_product`, arrays as shapes and dtypes, for compiling."""
        shapes = {"x": (self.rows, self.width), "matrix": (self.size, self.width), "bias": (LAYERS, self.size)}
        arrays = {name: jax.ShapeDtypeStruct(shape, self.dtype) for name, shape in shapes.items()}
        if self.stored:
            arrays["matrix"] = jax.ShapeDtypeStruct(shapes["matrix"], self.stored)
            arrays["scale"] = jax.ShapeDtypeStruct((self.size,), jnp.float32)
        return {**arrays, "layer": 1, "gelu_from": self.gelu_from}

    def make(self, seed: int = 0) -> dict[str, Any]:
        """Arguments of `input_product`; the bias of another layer is NaN."""
        random = np.random.default_rng(seed)
        arguments = self.abstract()
        for name in ("x", "matrix", "bias"):
            values = random.standard_normal(arguments[name].shape, np.float32)
            if name == "matrix":
                values *= 20 if self.stored else self.width**-0.5
            if name == "bias":
                values[0] = np.nan
            arguments[name] = values.astype(arguments[name].dtype)
        if self.stored:
            arguments["scale"] = random.uniform(0.5, 2, self.size).astype(np.float32) / (20 * self.width**0.5)
        return arguments


# For the interpreter, which copies whole operands about.
SMALL = (
    Case("one_row", 1, dtype="float32"),
    Case("rows", 5, dtype="float32"),
    Case("without_gelu", 5, gelu_from=None, dtype="float32"),
    Case("all_through_gelu", 5, gelu_from=0, dtype="float32"),
    Case("whole_tile", 16, size=64, dtype="float32"),
    Case("two_tiles", 20, dtype="float32"),
    Case("most_rows", 32, size=32, gelu_from=16, dtype="float32"),
    Case("odd_sizes", 3, size=112, width=80, dtype="float32"),
    Case("int8", 5, dtype="float32", stored="int8"),
    Case("float8", 3, dtype="float32", stored="float8_e4m3fn"),
    Case("bfloat16_int8", 8, width=256, stored="int8"),
    Case("bfloat16_one_row", 1),
    Case("bfloat16", 8, size=128, width=512),
    Case("bfloat16_two_tiles", 20),
)

REAL = tuple(Case(f"moondream_{rows}", rows, size=14336, width=2048, gelu_from=6144) for rows in (1, 8, 32))
