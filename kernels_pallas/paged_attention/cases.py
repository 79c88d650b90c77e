"""Shapes that tests and benchmarks share, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, slots=True)
class Case:
    """One call of paged attention.

    Attributes:
      lengths: entries of each row.
      prefix: of every row; 0 for none.
      width: pages a row of the table; None for as many as the longest row needs.
      kv_dtype: of the pools; None for the query's.
    """

    name: str
    heads: int
    kv_heads: int
    head_dim: int
    lengths: tuple[int, ...]
    page_size: int = 16
    prefix: int = 0
    width: int | None = None
    layers: int = 2
    layer: int = 1
    dtype: str = "bfloat16"
    kv_dtype: str | None = None

    @property
    def table_width(self) -> int:
        return self.width or -(-max(self.lengths) // self.page_size) or 1

    @property
    def pages(self) -> int:
        """Of the pool: what the rows use, the page that belongs to nobody, and a few free ones."""
        return sum(-(-length // self.page_size) for length in self.lengths) + 4

    @property
    def pool_shape(self) -> tuple[int, ...]:
        return self.layers, self.pages, self.page_size, self.kv_heads, self.head_dim

    def bytes(self) -> int:
        """What one call must read and write at least: visible keys and values, queries and outputs, page numbers."""
        seen = sum(length - len(_gap(self, length)) for length in self.lengths)
        entry = self.kv_heads * self.head_dim * jnp.dtype(self.kv_dtype or self.dtype).itemsize
        queries = len(self.lengths) * self.heads * self.head_dim * jnp.dtype(self.dtype).itemsize
        pages = sum(-(-length // self.page_size) for length in self.lengths)
        return 2 * seen * entry + 2 * queries + 4 * pages

    def abstract(self) -> dict[str, Any]:
        """Arguments of `paged_attention` as shapes and dtypes, for compiling."""
        return jax.eval_shape(lambda: self._arrays(jax.random.key(0), *self._tables(np.random.default_rng(0))))

    def make(self, seed: int = 0) -> dict[str, Any]:
        """Arguments of `paged_attention`, the static layer left out: shuffled pages, table entries behind a row's
        end any page, and NaN wherever no row may look, as a page's last tenant may leave it."""
        return self._arrays(jax.random.key(seed), *self._tables(np.random.default_rng(seed)))

    def _tables(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Page numbers int32 [B, W], and which places of the pool a row sees, bool [P, G]."""
        free = iter(random.permutation(np.arange(1, self.pages)))
        tables = random.integers(0, self.pages, (len(self.lengths), self.table_width), dtype=np.int32)
        seen = np.zeros((self.pages, self.page_size), bool)
        for row, length in enumerate(self.lengths):
            for place in range(-(-length // self.page_size)):
                tables[row, place] = next(free)
            entries = np.setdiff1d(np.arange(length), _gap(self, length))
            seen[tables[row, entries // self.page_size], entries % self.page_size] = True
        return tables, seen

    def _arrays(self, key: jax.Array, tables: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
        q_key, k_key, v_key = jax.random.split(key, 3)
        dtype, kv_dtype = jnp.dtype(self.dtype), jnp.dtype(self.kv_dtype or self.dtype)
        nan = jnp.full((), jnp.nan, kv_dtype)
        pools = [
            jnp.where(seen[None, :, :, None, None], jax.random.normal(k, self.pool_shape, dtype).astype(kv_dtype), nan)
            for k in (k_key, v_key)
        ]
        rows = len(self.lengths)
        arguments = {
            "q": jax.random.normal(q_key, (rows, self.heads, self.head_dim), dtype),
            "k_pool": pools[0],
            "v_pool": pools[1],
            "tables": jnp.asarray(tables),
            "lengths": jnp.asarray(self.lengths, jnp.int32),
            "prefixes": jnp.full(rows, self.prefix, jnp.int32),
        }
        if self.kv_dtype == "float8_e4m3fn":
            scales = jnp.arange(1, self.layers + 1, dtype=jnp.float32)
            arguments |= {"k_scale": 0.5 * scales, "v_scale": 0.25 * scales}
        return arguments


def _gap(case: Case, length: int) -> range:
    """Entries of a row that lie in the padding gap."""
    end = case.prefix + -case.prefix % case.page_size
    return range(min(case.prefix, length), min(end, length))


FLOAT8 = "float8_e4m3fn"

# For the interpreter, which copies whole pools about: at most 64 pages and 8 heads.
SMALL = (
    Case("one_row", 4, 4, 64, (37,), dtype="float32"),
    Case("edges", 4, 4, 32, (0, 1, 15, 16, 17, 64), dtype="float32"),
    Case("gap", 4, 4, 16, (45, 60, 25), prefix=20, dtype="float32"),
    Case("wide_table", 2, 2, 128, (30, 9), width=20, dtype="float32"),
    Case("grouped", 8, 2, 128, (50, 3), dtype="float32"),
    Case("grouped_by_12", 12, 1, 16, (40, 33), prefix=5, dtype="float32"),
    Case("three_heads", 6, 3, 16, (21, 34), page_size=8, dtype="float32"),
    Case("page_of_one", 2, 2, 16, (11, 5), page_size=1, dtype="float32"),
    Case("bfloat16", 8, 8, 64, (70, 33), prefix=30),
    Case("bfloat16_grouped", 8, 2, 128, (41, 16)),
    Case("float8", 8, 8, 64, (70, 33), prefix=30, kv_dtype=FLOAT8),
    Case("float8_grouped", 8, 2, 128, (40, 7), dtype="float32", kv_dtype=FLOAT8),
)


def _moondream(name: str, rows: int, positions: int = 850, **changes: Any) -> Case:
    """An image prefix of 730 positions, a gap behind it, in a table for 2080 positions."""
    return Case(name, 32, 32, 64, (positions + 6,) * rows, prefix=730, width=130, **changes)


REAL = (
    *(_moondream(f"moondream_{rows}", rows) for rows in (1, 8, 32, 64)),
    *(_moondream(f"moondream_{rows}_float8", rows, kv_dtype=FLOAT8) for rows in (1, 32)),
    _moondream("moondream_8_float32", 8, dtype="float32"),
    Case("moondream3_long_8", 32, 32, 64, (3606,) * 8, prefix=730, width=256),
    *(Case(f"llama_{rows}", 32, 8, 128, (1168,) * rows, prefix=784, width=130) for rows in (1, 8, 32)),
    Case("llama_32_float8", 32, 8, 128, (1168,) * 32, prefix=784, width=130, kv_dtype=FLOAT8),
)
