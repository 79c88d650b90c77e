"""Shapes that tests and benchmarks share, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels_pallas.paged_attention import cases as paged
from kernels_pallas.paged_attention.cases import FLOAT8


@dataclass(frozen=True, slots=True)
class Case(paged.Case):
    """One call of the attention of a step; lengths take in the new position.

    Attributes:
      turned: R, half the rotary dims; None for a quarter of the head dim.
      rest: columns of the product behind q, k and v.
      factors: parts of the factors of q and v; 0 for no factors.
    """

    turned: int | None = None
    rest: int = 0
    factors: int = 0

    def bytes(self) -> int:
        """What one call must read and write at least: visible keys and values, products and outputs, page numbers."""
        columns = 2 * self.kv_heads * self.head_dim * jnp.dtype(self.dtype).itemsize
        return paged.Case.bytes(self) + len(self.lengths) * columns

    def _arrays(self, key: jax.Array, tables: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
        seen = seen.copy()
        for row, length in enumerate(self.lengths):
            if length:  # nobody has written there
                seen[tables[row, (length - 1) // self.page_size], (length - 1) % self.page_size] = False
        arguments = paged.Case._arrays(self, key, tables, seen)
        del arguments["q"]
        rows = len(self.lengths)
        width = (self.heads + 2 * self.kv_heads) * self.head_dim + self.rest
        half = self.turned or self.head_dim // 4
        product_key, angle_key, factor_key = jax.random.split(jax.random.fold_in(key, 1), 3)
        angles = jax.random.uniform(angle_key, (rows, half), jnp.float32, 0, 6)
        arguments |= {
            "u": jax.random.normal(product_key, (rows, width), jnp.dtype(self.dtype)),
            "cos": jnp.cos(angles),
            "sin": jnp.sin(angles),
        }
        if self.factors:
            parts_key, terms_key = jax.random.split(factor_key)
            parts, terms = (self.factors, rows, 2 * self.heads), (self.layers, rows, self.heads)
            arguments["factor_parts"] = jax.random.normal(parts_key, parts, jnp.float32) * self.factors**-0.5
            arguments["factor_terms"] = jax.random.uniform(terms_key, terms, jnp.float32, 0.5, 1.5)
        return arguments


# For the interpreter, which copies whole pools about: at most 64 pages and 8 heads.
SMALL = (
    Case("one_row", 4, 4, 64, (37,), dtype="float32", rest=100),
    Case("edges", 2, 2, 32, (0, 1, 15, 16, 17, 64), dtype="float32"),
    Case("gap", 4, 4, 16, (45, 60, 33), prefix=20, width=8, dtype="float32"),
    Case("grouped", 8, 2, 32, (50, 3), dtype="float32"),
    Case("grouped_by_12", 12, 1, 16, (40, 33), prefix=5, dtype="float32"),
    Case("three_heads", 6, 3, 16, (21, 34), page_size=8, dtype="float32", turned=3),
    Case("page_of_one", 2, 2, 128, (11, 5), page_size=1, dtype="float32", turned=64),
    Case("factors", 4, 4, 32, (18, 0, 33), factors=3),
    Case("factors_of_one_part", 2, 2, 16, (18, 5), dtype="float32", factors=1),
    Case("bfloat16", 8, 4, 64, (70, 33), prefix=30, rest=64),
    Case("float8", 4, 4, 64, (70, 33), prefix=30, kv_dtype=FLOAT8),
)


def _moondream(name: str, rows: int, positions: int = 850, **changes: Any) -> Case:
    """An image prefix of 730 positions, a gap behind it, in a table for 2080 positions; an MLP behind the heads."""
    options: dict[str, Any] = {"width": 130, "rest": 8192, **changes}
    return Case(name, 32, 32, 64, (positions + 6,) * rows, prefix=730, **options)


REAL = (
    *(_moondream(f"moondream_{rows}", rows) for rows in (1, 8, 32)),
    *(_moondream(f"moondream_{rows}_float8", rows, kv_dtype=FLOAT8) for rows in (1, 32)),
    _moondream("moondream_8_float32", 8, dtype="float32"),
    _moondream("moondream3_long_8", 8, 3600, width=256, rest=0, factors=48),
    Case("grouped_32", 32, 8, 128, (856,) * 32, prefix=730, width=130, rest=8192),
    *(Case(f"llama_{rows}", 32, 8, 128, (1168,) * rows, prefix=784, width=257, turned=64) for rows in (1, 8, 32)),
)
