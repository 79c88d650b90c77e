"""Shapes shared by tests and benchmarks: small ones for the interpreter, real ones for a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

IMAGE = 730  # positions of a Moondream image prefix, BOS included


@dataclass(frozen=True, slots=True)
class Row:
    """A row's queries: positions start .. start + count - 1 behind (or in) a prefix."""

    start: int
    count: int
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `prefix_attention`.

    Attributes:
      name: for reports.
      rows: what each row asks.
      tokens: T.
      heads, kv_heads, head_dim, page: N, K, H, G.
      dtype: of queries and result.
      kv_dtype: of the pools; None for dtype.
    """

    name: str
    rows: tuple[Row, ...]
    tokens: int
    heads: int = 32
    kv_heads: int = 32
    head_dim: int = 64
    page: int = 16
    dtype: str = "bfloat16"
    kv_dtype: str | None = None

    def inputs(self, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments: layer 1 of 2, pages shuffled, NaN in all that must not be looked at."""
        random = np.random.default_rng(seed)
        used = [-(-self._end(row) // self.page) for row in self.rows]
        tables = random.permutation(len(self.rows) * (max(used) + 1)).astype(np.int32).reshape(len(self.rows), -1)
        kv_dtype = jnp.dtype(self.kv_dtype or self.dtype)
        k_pool, v_pool = (self._pool(random, tables, kv_dtype) for _ in range(2))
        for table, pages in zip(tables, used, strict=True):
            table[pages:] = random.integers(tables.size, size=len(table) - pages)  # anybody's
        q = _normal(random, (len(self.rows), self.tokens, self.heads, self.head_dim), jnp.dtype(self.dtype))
        for queries, row in zip(q, self.rows, strict=True):
            queries[row.count :] = np.nan
        per_row = np.array([(row.start, row.count, row.prefix) for row in self.rows], np.int32).T
        keywords: dict[str, Any] = {"layer": 1}
        if kv_dtype.itemsize == 1:
            keywords |= {"k_scale": np.array([3.0, 0.7], np.float32), "v_scale": np.array([5.0, 1.3], np.float32)}
        return (q, k_pool, v_pool, tables, *per_row), keywords

    def flops(self) -> int:
        """Multiplications and additions of both products, over visible pairs alone."""
        return 4 * self.head_dim * self.heads * sum(_pairs(row) for row in self.rows)

    def bytes(self) -> int:
        """Least memory traffic: queries and results of real positions, visible keys and values once."""
        queries = 2 * sum(row.count for row in self.rows) * self.heads * jnp.dtype(self.dtype).itemsize
        entries = sum(_seen(row) for row in self.rows if row.count)
        keys = 2 * entries * self.kv_heads * jnp.dtype(self.kv_dtype or self.dtype).itemsize
        return self.head_dim * (queries + keys)

    def _gap(self, row: Row) -> int:
        return -row.prefix % self.page

    def _end(self, row: Row) -> int:
        """Entries up to the last visible one."""
        return _seen(row) + (self._gap(row) if _seen(row) > row.prefix else 0)

    def _pool(self, random: np.random.Generator, tables: np.ndarray, dtype: np.dtype) -> np.ndarray:
        pool = np.full((2, tables.size, self.page, self.kv_heads, self.head_dim), np.nan, np.float32).astype(dtype)
        for table, row in zip(tables, self.rows, strict=True):
            entries = np.arange(self._end(row))
            entries = entries[(entries < row.prefix) | (entries >= row.prefix + self._gap(row))]
            shape = (len(entries), self.kv_heads, self.head_dim)
            pool[1, table[entries // self.page], entries % self.page] = _normal(random, shape, dtype)
        return pool


def _normal(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return random.standard_normal(shape, np.float32).astype(dtype)


def _seen(row: Row) -> int:
    """Positions that some query sees."""
    return max(row.start + row.count, row.prefix)


def _pairs(row: Row) -> int:
    """Visible (query, key) pairs."""
    positions = np.arange(row.start, row.start + row.count)
    return int(np.sum(np.where(positions < row.prefix, row.prefix, positions + 1)))


def _small(name: str, rows: tuple[Row, ...], tokens: int, **changes: Any) -> tuple[Case, ...]:
    shape: dict[str, Any] = {"heads": 2, "kv_heads": 2, "head_dim": 16, "page": 4} | changes
    return tuple(Case(f"{name}-{dtype}", rows, tokens, dtype=dtype, **shape) for dtype in ("float32", "bfloat16"))


_MIXED = (Row(0, 21, 21), Row(21, 5, 21), Row(0, 33), Row(17, 1), Row(0, 0), Row(0, 33, 10))
_CHUNK = (Row(21, 30, 21), Row(40, 7, 21))

SMALL = (
    *_small("mixed", _MIXED, 33),
    *_small("long", (Row(0, 90, 50), Row(70, 66, 50)), 90),
    *_small("one", (Row(21, 1, 21), Row(0, 1)), 1),
    *_small("grouped", _CHUNK, 32, heads=8, head_dim=32, page=1),
    *_small("wide", _CHUNK, 32, heads=4, kv_heads=1, head_dim=128, page=16),
    *_small("float8", _MIXED, 33, kv_dtype="float8_e4m3fn"),
)


def _real(name: str, row: Row, rows: int, tokens: int, **changes: Any) -> Case:
    return Case(f"{name}-{rows}", (row,) * rows, tokens, **changes)


REAL = (
    _real("image", Row(0, IMAGE, IMAGE), 1, IMAGE),
    _real("image", Row(0, IMAGE, IMAGE), 4, IMAGE),
    _real("chunk-32", Row(IMAGE, 32, IMAGE), 1, 32),
    _real("chunk-32", Row(IMAGE, 32, IMAGE), 4, 32),
    _real("chunk-128", Row(IMAGE, 128, IMAGE), 1, 128),
    _real("chunk-128", Row(IMAGE, 128, IMAGE), 4, 128),
    _real("prompt", Row(0, IMAGE + 38, IMAGE), 4, 768),
    _real("text", Row(0, 512), 4, 512),
    Case("mixed-4", (Row(0, IMAGE, IMAGE), Row(IMAGE, 128, IMAGE), Row(0, 512), Row(0, 0)), IMAGE),
    _real("grouped", Row(IMAGE, 128, IMAGE), 4, 128, kv_heads=8),
    _real("llama-image", Row(0, 784), 4, 784, kv_heads=8, head_dim=128),
    _real("llama-chunk", Row(784, 64, 784), 4, 64, kv_heads=8, head_dim=128),
    _real("float8", Row(IMAGE, 128, IMAGE), 4, 128, kv_dtype="float8_e4m3fn"),
)
