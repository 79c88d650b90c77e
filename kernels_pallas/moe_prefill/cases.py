"""Shapes that tests and benchmarks share: those of `kernels_pallas.moe_decode`, for more tokens."""

from __future__ import annotations

from typing import Any

from kernels_pallas.moe_decode.cases import FLOAT8, INT4, INT8, Case

# For the interpreter, which copies whole operands about. A tile takes 128 choices of an expert, in steps of 32.
SMALL = (
    Case("one_token", 1, 8, model=64, inner=32, dtype="float32"),
    Case("random", 40, 2, dtype="float32"),
    Case("one_expert", 150, 1, model=32, inner=16, routing="same", dtype="float32"),
    Case("uneven", 120, 2, model=32, inner=16, routing="uneven", dtype="float32"),
    Case("odd_sizes", 90, 3, experts=5, model=80, inner=48, dtype="float32"),
    Case("bfloat16", 100, 2),
    Case("float8", 100, 2, matrix_dtype=FLOAT8),
    Case("float8_float32", 33, 3, model=64, inner=32, dtype="float32", matrix_dtype=FLOAT8),
    Case("int8", 40, 2, matrix_dtype=INT8),
    Case("int4", 40, 2, model=256, inner=128, matrix_dtype=INT4, group=128),
    Case("int4_small_groups", 40, 2, model=64, inner=32, matrix_dtype=INT4, group=32, dtype="float32", slots=2),
    Case("adapters", 40, 2, model=64, inner=32, dtype="float32", slots=3),
    Case("adapters_one_expert", 150, 1, model=32, inner=16, routing="same", dtype="float32", slots=5, rank=4),
    Case("adapters_float8", 40, 2, matrix_dtype=FLOAT8, slots=2, rank=1),
    # Of the shapes above, which are compiled already.
    Case("split", 120, 2, model=32, inner=16, routing="uneven", dtype="float32", elsewhere=8),
    Case("split_bfloat16", 100, 2, elsewhere=8),
    Case("split_float8", 100, 2, matrix_dtype=FLOAT8, elsewhere=8),
    Case("split_int8", 40, 2, matrix_dtype=INT8, elsewhere=8),
    Case("split_int4", 40, 2, model=64, inner=32, matrix_dtype=INT4, group=32, dtype="float32", slots=2, elsewhere=8),
    Case("split_adapters", 40, 2, model=64, inner=32, dtype="float32", slots=3, elsewhere=8),
    Case("nowhere", 40, 2, model=64, inner=32, routing="nowhere", dtype="float32", slots=3),
)


def _moondream3(name: str, tokens: int, **changes: Any) -> Case:
    return Case(f"{name}_{tokens}", tokens, 8, experts=64, model=2048, inner=1024, **changes)


# An image prefix and four of them.
REAL = (
    *(_moondream3("moondream3", tokens) for tokens in (730, 2920)),
    _moondream3("moondream3_float8", 730, matrix_dtype=FLOAT8),
    _moondream3("moondream3_int4", 730, matrix_dtype=INT4, group=128),
    _moondream3("moondream3_uneven", 730, routing="uneven"),
    _moondream3("moondream3_adapters", 730, slots=4),
    _moondream3("moondream3_split", 730, elsewhere=192),
)
