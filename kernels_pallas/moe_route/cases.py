"""Shapes that tests and benchmarks share, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `moe_route`.

    Attributes:
      name: for reports.
      tokens, experts, model, top: T, E, D, k.
      layers, layer: R, and the row of the bias.
      dtype: of tokens, router and bias.
    """

    name: str
    tokens: int
    experts: int = 8
    model: int = 128
    top: int = 2
    layers: int = 2
    row: int = 1
    dtype: str = "bfloat16"

    def bytes(self) -> int:
        """What one call must read and write at least: router, tokens and bias; logits, experts and weights."""
        item = jnp.dtype(self.dtype).itemsize
        read = item * (self.experts * self.model + self.tokens * self.model + self.experts)
        return read + 4 * self.tokens * (self.experts + 2 * self.top)

    def abstract(self) -> dict[str, Any]:
        """Arguments of `moe_route`, arrays as shapes and dtypes."""
        array = jax.ShapeDtypeStruct
        return {
            "x": array((self.tokens, self.model), self.dtype),
            "router": array((self.experts, self.model), self.dtype),
            "bias": array((self.layers, self.experts), self.dtype),
            "top": self.top,
            "row": self.row,
        }

    def make(self, seed: int = 0) -> dict[str, Any]:
        """Arguments of `moe_route`; the biases of other layers are NaN."""
        random, arguments = np.random.default_rng(seed), self.abstract()
        for name in ("x", "router", "bias"):
            shape, dtype = arguments[name].shape, arguments[name].dtype
            values = random.standard_normal(shape, np.float32) * (self.model**-0.5 if name == "router" else 1)
            arguments[name] = values.astype(dtype)
        arguments["bias"][np.arange(self.layers) != self.row] = np.nan
        return arguments


# For the interpreter, which copies whole operands about.
SMALL = (
    Case("one_token", 1, dtype="float32"),
    Case("several_groups", 40, dtype="float32"),
    Case("all_chosen", 5, experts=4, top=4, dtype="float32"),
    Case("odd_sizes", 3, experts=5, model=80, top=3, dtype="float32"),
    Case("many_experts", 2, experts=64, model=512, top=8, dtype="float32"),
    Case("bfloat16", 8),
)


def _moondream3(tokens: int) -> Case:
    return Case(f"moondream3_{tokens}", tokens, experts=64, model=2048, top=8, layers=20)


REAL = tuple(map(_moondream3, (1, 8, 32, 730)))
