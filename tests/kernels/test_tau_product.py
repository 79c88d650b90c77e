"""The product that factors are made of: the kernel equals the reference, whatever the sizes; bad input is named."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.dispatch import KernelUnavailable, Target
from kernels_pallas.tau_product import tau_product, triton
from kernels_pallas.tau_product.cases import REAL, SMALL, Case
from tests.kernels.comparing import (
    H200,
    TOLERANCE,
    VOLTA,
    assert_broken_row_is_alone,
    assert_company_does_not_matter,
    compiled,
    error,
    lowered,
)

BY_NAME = {case.name: case for case in SMALL}
named = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)


def run(arguments, backend):
    """The sum of all parts."""
    parts = compiled(tau_product, backend)(**arguments)
    assert parts.dtype == jnp.float32 and parts.shape[1:] == (len(arguments["u"]), len(arguments["matrix"]))
    return np.sum(np.asarray(parts, np.float64), axis=0)


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / 2**0.5)) / 2


@named
def test_kernel_equals_reference(case):
    arguments = case.make(1)
    expected, actual = (run(arguments, backend) for backend in ("reference", "interpret"))
    assert error(actual, expected) <= TOLERANCE[case.dtype]


@pytest.mark.smoke
def test_kernel_equals_reference_on_every_version():
    arguments = BY_NAME["odd_sizes"].make()
    assert error(run(arguments, "interpret"), run(arguments, "reference")) <= TOLERANCE["float32"]


@named
def test_reference_is_the_formula(case):
    arguments = case.make(2)
    u, matrix = (np.asarray(arguments[name], np.float64) for name in ("u", "matrix"))
    expected = gelu(u[:, : case.width]) @ matrix.T
    assert error(run(arguments, "reference"), expected) <= TOLERANCE[case.dtype]


def test_the_kernels_gelu_is_exact_to_float32():
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    found = np.asarray(triton.gelu(jnp.asarray(x)), np.float64)
    assert np.max(np.abs(found - gelu(np.float64(x))) / np.maximum(np.abs(x), 1)) <= 2e-7
    far = jnp.asarray([-1e4, 1e4, -np.inf, 3e38], jnp.float32)
    np.testing.assert_array_equal(triton.gelu(far[:2]), [0, 1e4])
    assert np.asarray(triton.gelu(far[3:]))[0] == far[3]


@given(
    rows=st.integers(1, 32),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 12)),
    rest=st.integers(0, 40),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_any_sizes(rows, sizes, rest, seed):
    arguments = Case("any", rows, sizes[0], 16 * sizes[1], rest, "float32").make(seed)
    # Of one factor and one row there is no larger number that the error is small beside.
    expected, actual = (run(arguments, backend) for backend in ("reference", "interpret"))
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_a_row_does_not_depend_on_its_company():
    assert_company_does_not_matter(run, BY_NAME["two_tiles"].make(4), "u")


@pytest.mark.parametrize("backend", ["reference", "interpret"])
def test_a_broken_row_breaks_itself_alone(backend):
    assert_broken_row_is_alone(run, BY_NAME["rows"].make(5), "u", backend)


@pytest.mark.smoke
@pytest.mark.parametrize("case", [BY_NAME["odd_sizes"], *REAL], ids=lambda case: case.name)
def test_kernel_lowers_for_cuda_without_a_gpu(case):
    assert "tau_product" in lowered(tau_product, case.abstract())


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        (H200, {"rows": 33}, "33 rows are more than 32"),
        (H200, {"width": 72}, "72 columns"),
        (H200, {"width": 16 * 257}, "257 parts are more than 256"),
        (VOLTA, {}, "compute capability 8.0"),
        (Target("cpu"), {}, "NVIDIA"),
    ],
)
def test_what_the_kernel_cannot_do_is_said(target, changes, reason):
    arrays = dataclasses.replace(BY_NAME["rows"], **changes).abstract()
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(partial(tau_product, backend="triton", target=target), **arrays)
    jax.eval_shape(partial(tau_product, target=target), **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"u": ((5, 128), jnp.float16)}, r"u must be \[B, C\] in bfloat16 or float32"),
        ({"matrix": ((8, 144), jnp.float32)}, r"matrix must be float32 \[N, up to 128\]"),
        ({"matrix": ((8, 96), jnp.int8)}, "not int8"),
    ],
)
def test_bad_input_is_named(changes, message):
    arrays = BY_NAME["rows"].abstract() | {key: jax.ShapeDtypeStruct(*new) for key, new in changes.items()}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(tau_product, **arrays)


def test_bytes_count_everything_once():
    assert Case("count", 2, 32, 16).bytes() == 2 * (2 * 16 + 32 * 16) + 4 * 2 * 32
