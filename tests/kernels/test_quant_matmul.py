"""The product with a matrix of few bits: the kernel equals the reference, bad input is named."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.dispatch import KernelUnavailable, Target
from kernels_pallas.quant_matmul import quant_matmul
from kernels_pallas.quant_matmul.cases import FLOAT8, REAL, SMALL, Case
from tests.kernels.comparing import (
    H200,
    TOLERANCE,
    VOLTA,
    arrays_of,
    assert_broken_row_is_alone,
    assert_company_does_not_matter,
    compiled,
    error,
    lowered,
)

BY_NAME = {case.name: case for case in SMALL}
named = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)


def run(arguments, backend):
    arrays, static = arrays_of(arguments)
    return compiled(quant_matmul, backend, **static)(**arrays)


@named
def test_kernel_equals_reference(case):
    arguments = case.make(1)
    expected, actual = (run(arguments, backend) for backend in ("reference", "interpret"))
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert error(actual, expected) <= TOLERANCE[case.dtype]


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["odd_sizes", "bfloat16_two_tiles"])
def test_kernel_equals_reference_on_every_version(name):
    arguments = BY_NAME[name].make()
    assert error(run(arguments, "interpret"), run(arguments, "reference")) <= TOLERANCE[BY_NAME[name].dtype]


@named
def test_reference_is_the_formula(case):
    arguments = case.make(2)
    x, matrix, scale = (np.asarray(arguments[name], np.float64) for name in ("x", "matrix", "scale"))
    zero = 0 if arguments["zero"] is None else np.repeat(np.asarray(arguments["zero"], np.float64), case.group, axis=1)
    expected = x @ ((matrix - zero) * np.repeat(scale, case.group, axis=1)).T
    assert error(run(arguments, "reference"), expected) <= TOLERANCE[case.dtype]


@given(
    rows=st.integers(1, 40),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4)),
    zero=st.booleans(),
    stored=st.sampled_from(["int4", "int8"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=6)
def test_any_sizes(rows, sizes, zero, stored, seed):
    """Of whole numbers and factors that are powers of two every sum is exact in any order."""
    count, groups, group = sizes
    case = Case(
        "any", rows, 16 * count, 32 * group * groups, 32 * group, zero, dtype="float32", matrix_dtype=stored
    )  # fmt: skip
    arguments, random = case.make(seed), np.random.default_rng(seed)
    arguments["x"] = random.integers(-3, 4, arguments["x"].shape).astype(np.float32)
    arguments["scale"] = (2.0 ** random.integers(-2, 3, arguments["scale"].shape)).astype(arguments["scale"].dtype)
    if zero:
        arguments["zero"] = np.round(np.asarray(arguments["zero"], np.float32)).astype(arguments["zero"].dtype)
    np.testing.assert_array_equal(run(arguments, "interpret"), run(arguments, "reference"))


def test_factors_meet_sums_not_rounded_numbers():
    """bfloat16 has 8 bits: a factor of all of them times 7 would be rounded."""
    arguments = BY_NAME["bfloat16_one_row"].make()
    arguments["x"] = np.ones_like(arguments["x"])
    arguments["matrix"] = np.full_like(arguments["matrix"], 7)
    arguments["scale"] = np.full_like(arguments["scale"], 1 + 2**-7)
    out = run(arguments | {"out": "float32"}, "interpret")
    np.testing.assert_array_equal(np.asarray(out), np.float32(128 * 7 * (1 + 2**-7)))


def test_a_row_does_not_depend_on_its_company():
    assert_company_does_not_matter(run, BY_NAME["bfloat16_two_tiles"].make(3), "x")


@pytest.mark.parametrize("backend", ["reference", "interpret"])
def test_a_broken_row_breaks_itself_alone(backend):
    assert_broken_row_is_alone(run, BY_NAME["rows"].make(4), "x", backend)


@pytest.mark.smoke
@pytest.mark.parametrize("case", [BY_NAME["odd_sizes"], *REAL[-3:]], ids=lambda case: case.name)
def test_kernel_lowers_for_cuda_without_a_gpu(case):
    assert "quant_matmul" in lowered(quant_matmul, case.abstract())


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        (H200, {"size": 40}, "40 rows are not a multiple of 16"),
        (H200, {"group": 16}, "groups of 16 columns are not a multiple of 32"),
        (H200, {"group": 8, "matrix_dtype": "int8"}, "groups of 8 columns are not a multiple of 16"),
        (Target("cuda", 80, 108), {"matrix_dtype": FLOAT8}, "float8 needs compute capability 8.9"),
        (VOLTA, {}, "compute capability 8.0"),
        (Target("cpu"), {}, "NVIDIA"),
    ],
)
def test_what_the_kernel_cannot_do_is_said(target, changes, reason):
    arrays, static = arrays_of(dataclasses.replace(BY_NAME["rows"], **changes).abstract())
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(partial(quant_matmul, **static, backend="triton", target=target), **arrays)
    jax.eval_shape(partial(quant_matmul, **static, target=target), **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": ((5, 128), jnp.float16)}, r"x must be \[B, K\] in bfloat16 or float32"),
        ({"matrix": ((96, 64), jnp.int4)}, r"matrix must be \[N, 128\]"),
        ({"matrix": ((96, 128), jnp.uint4)}, "int4, int8, float8_e4m3fn, not uint4"),
        ({"scale": ((95, 2), jnp.bfloat16)}, r"scale must be \[96, G\]"),
        ({"scale": ((96, 3), jnp.bfloat16)}, "128 columns are no 3 groups"),
        ({"zero": ((96, 2), jnp.float32)}, "zero must be as scale"),
    ],
)
def test_bad_input_is_named(changes, message):
    arrays, static = arrays_of(BY_NAME["rows"].abstract())
    arrays |= {key: jax.ShapeDtypeStruct(*new) for key, new in changes.items()}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(quant_matmul, **static), **arrays)


def test_bytes_count_everything_once():
    assert Case("count", 2, 32, 64, 32, zero=True).bytes() == 32 * 64 // 2 + 2 * 32 * 2 * 2 + 2 * 2 * (32 + 64)
