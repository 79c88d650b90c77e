"""Shapes that tests and benchmarks share, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FLOAT8, INT8, INT4 = "float8_e4m3fn", "int8", "int4"
SCALED = (FLOAT8, INT8, INT4)
WHOLE = {INT8: 32, INT4: 3}  # the size of whole numbers
LAYERS = 2  # of pairs
BESIDE = ("up", "down", "up_scale", "down_scale")


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `moe_decode`.

    Attributes:
      name: for reports.
      tokens, top, experts, model, inner: T, k, E, D, I.
      elsewhere: experts that are not here but chosen like the others, numbered behind them.
      routing: "random"; "same", all tokens choose alike; "apart", no two tokens share an expert while there are any;
        "uneven", the first expert is everybody's first choice, the last one nobody's; "nowhere", no choice is here.
      dtype: of x and the result.
      matrix_dtype: of up and down; None for dtype.
      group: columns that share a scale; 0 for all of a row.
      slots, rank: S and R of the pairs beside the matrices; no slots for none.
    """

    name: str
    tokens: int
    top: int
    experts: int = 8
    model: int = 128
    inner: int = 64
    routing: str = "random"
    dtype: str = "bfloat16"
    matrix_dtype: str | None = None
    group: int = 0
    slots: int = 0
    rank: int = 2
    elsewhere: int = 0

    def bytes(self) -> int:
        """What one call must read and write at least: chosen experts once (of pairs, as if all had one slot), tokens,
        choices and results."""
        choices = self._experts(np.random.default_rng(0))
        chosen = len(np.unique(choices[choices >= 0]))
        of_matrices = {name: x for name, x in self.abstract().items() if name in BESIDE}
        sizes = {INT4: 0.5}
        expert = sum(x.size // self.experts * sizes.get(x.dtype.name, x.dtype.itemsize) for x in of_matrices.values())
        if self.slots:
            expert += self.rank * (2 * self.model + 3 * self.inner) * jnp.dtype(self.dtype).itemsize
        token = 2 * self.model * jnp.dtype(self.dtype).itemsize + 8 * self.top
        return int(chosen * expert) + self.tokens * token

    def flops(self) -> int:
        """Products and sums of the chosen experts that are here."""
        here = int(np.sum(self._experts(np.random.default_rng(0)) >= 0))
        return 2 * here * 3 * self.model * self.inner

    def abstract(self) -> dict[str, Any]:
        """Arguments of `moe_decode` as shapes and dtypes, for compiling."""
        array = jax.ShapeDtypeStruct
        matrix_dtype = self.matrix_dtype or self.dtype
        arguments: dict[str, Any] = {
            "x": array((self.tokens, self.model), self.dtype),
            "up": array((self.experts, 2 * self.inner, self.model), matrix_dtype),
            "down": array((self.experts, self.model, self.inner), matrix_dtype),
            "experts": array((self.tokens, self.top), np.int32),
            "weights": array((self.tokens, self.top), np.float32),
        }
        if self.matrix_dtype in SCALED:
            for name in ("up", "down"):
                rows, columns = arguments[name].shape[1:]
                groups = ((columns // self.group,), self.dtype) if self.group else ((), np.float32)
                arguments[f"{name}_scale"] = array((self.experts, rows, *groups[0]), groups[1])
        if self.slots:
            arguments |= {"slots": array((self.tokens,), np.int32), "layer": LAYERS - 1}
            for name in ("up", "down"):
                rows, columns = arguments[name].shape[1:]
                arguments[f"{name}_a"] = array((LAYERS, self.experts, self.slots, self.rank, columns), self.dtype)
                arguments[f"{name}_b"] = array((LAYERS, self.experts, rows, self.slots, self.rank), self.dtype)
        return arguments

    def make(self, seed: int = 0) -> dict[str, Any]:
        """Arguments of `moe_decode`; experts that nobody chose are NaN, and so are the weights of choices that are not
        here. `bytes` and `flops` count the choices of seed 0."""
        random = np.random.default_rng(seed)
        experts = self._experts(random)
        unchosen = ~np.isin(np.arange(self.experts), experts)
        chosen = ("experts", "slots", "layer")
        arguments = {name: _normal(random, shape) for name, shape in self.abstract().items() if name not in chosen}
        weights = np.exp(arguments["weights"])
        weights = np.where(experts >= 0, weights / weights.sum(axis=1, keepdims=True), np.float32(np.nan))
        arguments |= {"experts": experts, "weights": weights}
        for name in ("up", "down"):
            size = WHOLE.get(self.matrix_dtype or "", 1)
            if self.matrix_dtype in SCALED:
                # Not in a narrow dtype, whose scales would be off in all groups alike.
                scale = np.exp(
                    0.2 * _normal(random, jax.ShapeDtypeStruct(arguments[f"{name}_scale"].shape, np.float32))
                )
                scale = (scale * arguments[name].shape[2] ** -0.5 / size).astype(arguments[f"{name}_scale"].dtype)
                arguments[f"{name}_scale"] = scale
            # There is no NaN among whole numbers.
            arguments[f"{name}_scale" if self.matrix_dtype in WHOLE else name][unchosen] = np.nan
        if self.slots:
            arguments |= {"slots": random.integers(-1, self.slots, self.tokens, np.int32), "layer": LAYERS - 1}
        return arguments

    def _experts(self, random: np.random.Generator) -> np.ndarray:
        """int32 [T, k]; those of one token differ, but for -1."""
        numbers = self._routed(random, self.experts + self.elsewhere).astype(np.int32)
        return np.where((numbers < self.experts) & (self.routing != "nowhere"), numbers, np.int32(-1))

    def _routed(self, random: np.random.Generator, count: int) -> np.ndarray:
        """[T, k] of so many experts."""
        if self.routing == "apart":
            return np.resize(random.permutation(count), self.tokens * self.top).reshape(self.tokens, self.top)
        if self.routing == "uneven":
            others = [1 + random.permutation(count - 2)[: self.top - 1] for _ in range(self.tokens)]
            return np.stack([np.append(0, row) for row in others])
        rows = [random.permutation(count)[: self.top] for _ in range(self.tokens)]
        return np.stack(rows[:1] * self.tokens if self.routing == "same" else rows)


def _normal(random: np.random.Generator, array: jax.ShapeDtypeStruct) -> np.ndarray:
    """Normal values: of size 1, or, in matrices without scales, such that products with them are."""
    # Large matrices repeat a prime number of values, so that no two rows are alike: drawing all takes too long.
    values = random.standard_normal(min(array.size, 1_000_003), np.float32)
    if len(array.shape) >= 3 and array.dtype.itemsize > 1:
        values *= array.shape[-1] ** -0.5
    if (size := WHOLE.get(array.dtype.name)) is not None:
        values = np.clip(np.rint(size * values), *((-8, 7) if array.dtype.name == INT4 else (-127, 127)))
    return np.resize(values.astype(array.dtype), array.shape)


# For the interpreter, which copies whole operands about.
SMALL = (
    Case("one_token", 1, 8, dtype="float32"),
    Case("by_choice", 3, 2, model=64, inner=32, dtype="float32"),
    Case("random", 8, 2, dtype="float32"),
    Case("one_expert", 8, 1, routing="same", dtype="float32"),
    Case("few_on_one_expert", 5, 1, routing="same", model=64, dtype="float32"),
    Case("apart", 4, 2, routing="apart", dtype="float32"),
    Case("many_tokens", 40, 2, routing="same", model=64, inner=32, dtype="float32"),
    Case("odd_sizes", 3, 2, experts=5, model=80, inner=48, dtype="float32"),
    Case("bfloat16_one_token", 1, 8),
    Case("bfloat16", 8, 2),
    Case("float8_one_token", 1, 8, matrix_dtype=FLOAT8),
    Case("float8", 8, 2, matrix_dtype=FLOAT8),
    Case("float8_float32", 4, 3, dtype="float32", matrix_dtype=FLOAT8),
    Case("int8", 8, 2, matrix_dtype=INT8),
    Case("int4", 8, 2, model=256, inner=128, matrix_dtype=INT4, group=128),
    Case("int4_float32", 5, 2, matrix_dtype=INT4, group=64, dtype="float32"),
    Case("int4_small_groups", 3, 2, model=96, inner=32, matrix_dtype=INT4, group=32, dtype="float32", slots=2),
    Case("int8_groups", 3, 2, model=64, inner=32, matrix_dtype=INT8, group=32, dtype="float32"),
    Case("adapters", 8, 2, dtype="float32", slots=3),
    Case("adapters_one_token", 1, 4, model=64, inner=32, dtype="float32", slots=1, rank=3),
    Case("adapters_many_tokens", 20, 2, experts=4, model=64, inner=32, dtype="float32", slots=5, rank=4),
    Case("adapters_float8", 8, 2, matrix_dtype=FLOAT8, slots=2, rank=1),
    # Of the shapes above, which are compiled already.
    Case("split", 8, 2, dtype="float32", elsewhere=8),
    Case("split_by_choice", 3, 2, model=64, inner=32, dtype="float32", elsewhere=8),
    Case("split_many_tokens", 40, 2, model=64, inner=32, routing="uneven", dtype="float32", elsewhere=8),
    Case("split_bfloat16", 8, 2, elsewhere=8),
    Case("split_float8", 8, 2, matrix_dtype=FLOAT8, elsewhere=8),
    Case("split_int8", 8, 2, matrix_dtype=INT8, elsewhere=8),
    Case("split_int4", 3, 2, model=96, inner=32, matrix_dtype=INT4, group=32, dtype="float32", slots=2, elsewhere=8),
    Case("split_adapters", 8, 2, dtype="float32", slots=3, elsewhere=8),
    Case("nowhere", 8, 2, routing="nowhere", dtype="float32", slots=3),
    Case("nowhere_by_choice", 3, 2, model=64, inner=32, routing="nowhere", dtype="float32"),
)


def _moondream3(name: str, tokens: int, **changes: Any) -> Case:
    return Case(f"{name}_{tokens}", tokens, 8, experts=64, model=2048, inner=1024, **changes)


REAL = (
    *(_moondream3("moondream3", tokens) for tokens in (1, 8, 32)),
    *(_moondream3("moondream3_float8", tokens, matrix_dtype=FLOAT8) for tokens in (1, 8, 32)),
    _moondream3("moondream3_int4", 8, matrix_dtype=INT4, group=128),
    _moondream3("moondream3_same", 32, routing="same"),
    _moondream3("moondream3_adapters", 8, slots=4),
    _moondream3("moondream3_split", 8, elsewhere=192),
)
