"""The product at the beginning of a layer: the kernel equals the reference, bad input is named."""

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
from kernels_pallas.input_product import input_product
from kernels_pallas.input_product.cases import REAL, SMALL, Case
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
    return compiled(input_product, backend, **static)(**arrays)


@named
def test_kernel_equals_reference(case):
    arguments = case.make(1)
    expected, actual = (run(arguments, backend) for backend in ("reference", "interpret"))
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert error(actual, expected) <= TOLERANCE[case.dtype]


@pytest.mark.smoke
def test_kernel_equals_reference_on_every_version():
    arguments = BY_NAME["odd_sizes"].make()
    assert error(run(arguments, "interpret"), run(arguments, "reference")) <= TOLERANCE["float32"]


@named
def test_reference_is_the_formula(case):
    arguments = case.make(2)
    x, matrix, bias = (np.asarray(arguments[name], np.float64) for name in ("x", "matrix", "bias"))
    expected = x @ matrix.T * np.asarray(arguments.get("scale", 1), np.float64) + bias[arguments["layer"]]
    if case.gelu_from is not None:
        z = expected[:, case.gelu_from :]
        z *= 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    assert error(run(arguments, "reference"), expected) <= TOLERANCE[case.dtype]


def integers(case: Case, seed: int) -> dict:
    """Inputs of which every sum is exact in any order."""
    random, arguments = np.random.default_rng(seed), case.abstract()
    for name in ("x", "matrix", "bias"):
        arguments[name] = random.integers(-3, 4, arguments[name].shape).astype(case.dtype)
    return arguments


@given(rows=st.integers(1, 32), sizes=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_any_sizes(rows, sizes, seed):
    arguments = integers(Case("any", rows, 16 * sizes[0], 16 * sizes[1], None, "float32"), seed)
    np.testing.assert_array_equal(run(arguments, "interpret"), run(arguments, "reference"))


@pytest.mark.parametrize("backend", ["reference", "interpret"])
def test_large_values_go_through_gelu(backend):
    """Where the exponential overflows gelu is 0 or its argument."""
    arguments = BY_NAME["all_through_gelu"].make(3)
    arguments["bias"][:] = np.where(arguments["bias"][1] > 0, 300, -300)
    plain = run(arguments | {"gelu_from": None}, backend)
    np.testing.assert_array_equal(run(arguments, backend), np.maximum(plain, 0))


def test_a_row_does_not_depend_on_its_company():
    assert_company_does_not_matter(run, BY_NAME["two_tiles"].make(3), "x")


@pytest.mark.parametrize("backend", ["reference", "interpret"])
def test_a_broken_row_breaks_itself_alone(backend):
    assert_broken_row_is_alone(run, BY_NAME["rows"].make(4), "x", backend)


@pytest.mark.smoke
@pytest.mark.parametrize("case", [BY_NAME["odd_sizes"], *REAL], ids=lambda case: case.name)
def test_kernel_lowers_for_cuda_without_a_gpu(case):
    assert "input_product" in lowered(input_product, case.abstract())


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        (H200, {"rows": 33}, "33 rows are more than 32"),
        (H200, {"size": 40}, "40 rows or columns"),
        (H200, {"width": 72}, "72 rows or columns"),
        (VOLTA, {}, "compute capability 8.0"),
        (Target("cpu"), {}, "NVIDIA"),
    ],
)
def test_what_the_kernel_cannot_do_is_said(target, changes, reason):
    arrays, static = arrays_of(dataclasses.replace(BY_NAME["rows"], **changes).abstract())
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(partial(input_product, **static, backend="triton", target=target), **arrays)
    jax.eval_shape(partial(input_product, **static, target=target), **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": ((5, 64), jnp.float16)}, r"x must be \[B, K\] in bfloat16 or float32"),
        ({"matrix": ((96, 32), jnp.float32)}, r"matrix must be \[N, 64\]"),
        ({"matrix": ((96, 64), jnp.int8), "scale": ((1,), jnp.float32)}, r"scale must be float32\[96\]"),
        ({"matrix": ((96, 64), jnp.int8)}, "not int8"),
        ({"bias": ((2, 64), jnp.float32)}, r"bias must be float32 \[L, 96\]"),
        ({"bias": ((1, 96), jnp.float32)}, "layer 1 of 1"),
    ],
)
def test_bad_input_is_named(changes, message):
    arrays, static = arrays_of(BY_NAME["rows"].abstract())
    arrays |= {key: jax.ShapeDtypeStruct(*new) for key, new in changes.items()}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(input_product, **static), **arrays)


def test_gelu_begins_at_a_column():
    arrays, static = arrays_of(BY_NAME["rows"].abstract())
    with pytest.raises(ValueError, match="gelu_from 97 is not one of 96 columns"):
        jax.eval_shape(partial(input_product, **static | {"gelu_from": 97}), **arrays)


def test_bytes_count_everything_once():
    assert Case("count", 2, 32, 16).bytes() == 2 * (2 * 16 + 32 * 16 + 32 + 2 * 32)
