"""Shapes that tests and benchmarks share, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LAYERS = 3  # of biases and norms


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `residual_norm`.

    Attributes:
      name: for reports.
      rows, width, parts: B, D, S.
      biases: R, rows of the bias of a layer.
      norm: whether a norm is asked for.
      dtype: of all but the parts.
    """

    name: str
    rows: int
    width: int = 64
    parts: int = 4
    biases: int = 1
    norm: bool = True
    dtype: str = "bfloat16"

    def bytes(self) -> int:
        """What one call must read and write at least."""
        item = jnp.dtype(self.dtype).itemsize
        once = (self.biases + 2 * self.norm) * self.width * item
        return once + self.rows * self.width * ((2 + self.norm) * item + 4 * self.parts)

    def abstract(self) -> dict[str, Any]:
        """Arguments of `residual_norm`, arrays as shapes and dtypes, for compiling."""
        array = jax.ShapeDtypeStruct
        return {
            "x": array((self.rows, self.width), self.dtype),
            "parts": array((self.parts, self.rows, self.width), np.float32),
            "bias": array((LAYERS, self.biases, self.width), self.dtype),
            "norm": array((LAYERS, 2, self.width), self.dtype) if self.norm else None,
            "layer": 1,
            "norm_layer": 2,
        }

    def make(self, seed: int = 0) -> dict[str, Any]:
        """Arguments of `residual_norm`; other layers than those asked for are NaN."""
        random = np.random.default_rng(seed)
        arguments = self.abstract()
        for name, layer in (("x", None), ("parts", None), ("bias", 1), ("norm", 2)):
            if arguments[name] is None:
                continue
            values = random.standard_normal(arguments[name].shape, np.float32)
            if layer is not None:
                values[np.arange(LAYERS) != layer] = np.nan
            arguments[name] = values.astype(arguments[name].dtype)
        return arguments


# For the interpreter, which copies whole operands about.
SMALL = (
    Case("one_row", 1, dtype="float32"),
    Case("rows", 5, biases=2, dtype="float32"),
    Case("one_part", 2, parts=1, dtype="float32"),
    Case("odd_width", 3, width=80, dtype="float32"),
    Case("without_norm", 3, norm=False, dtype="float32"),
    Case("wide", 2, width=1024, parts=16, dtype="float32"),
    Case("bfloat16", 5, biases=2),
    Case("bfloat16_odd_width", 3, width=80),
    Case("bfloat16_without_norm", 3, norm=False),
)

REAL = (
    *(Case(f"moondream_{rows}", rows, width=2048, parts=8) for rows in (1, 8, 32)),
    Case("moondream_last_8", 8, width=2048, parts=8, norm=False),
)
