"""The product at the end of a layer: the kernel equals the reference, however it is split; bad input is named."""

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
from kernels_pallas.output_product import output_product
from kernels_pallas.output_product.cases import REAL, SMALL, Case
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
    """The sum of all parts."""
    arrays, static = arrays_of(arguments)
    parts = compiled(output_product, backend, **static)(**arrays)
    assert parts.dtype == jnp.float32 and parts.shape[1:] == (len(arrays["a"]), len(arrays["matrix"]))
    return np.sum(np.asarray(parts, np.float64), axis=0)


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
    a, u, matrix = (np.asarray(arguments[name], np.float64) for name in ("a", "u", "matrix"))
    expected = np.hstack([a, u[:, case.before :]]) @ matrix.T * np.asarray(arguments.get("scale", 1), np.float64)
    assert error(run(arguments, "reference"), expected) <= TOLERANCE[case.dtype]


@given(
    rows=st.integers(1, 32),
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    before=st.integers(0, 3),
    splits=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_any_sizes_and_splits(rows, sizes, before, splits, seed):
    size, attended, hidden = (16 * n for n in sizes)
    case = Case("any", rows, size, attended, hidden, 16 * before, splits, "float32")
    arguments = case.make(seed)
    assert error(run(arguments, "interpret"), run(arguments, "reference")) <= TOLERANCE["float32"]


def test_a_row_does_not_depend_on_its_company():
    assert_company_does_not_matter(run, BY_NAME["two_tiles"].make(4), "a", "u")


@pytest.mark.parametrize("backend", ["reference", "interpret"])
def test_a_broken_row_breaks_itself_alone(backend):
    assert_broken_row_is_alone(run, BY_NAME["rows"].make(5), "u", backend)


@pytest.mark.smoke
@pytest.mark.parametrize("case", [BY_NAME["odd_sizes"], *REAL], ids=lambda case: case.name)
def test_kernel_lowers_for_cuda_without_a_gpu(case):
    assert "output_product" in lowered(output_product, case.abstract())


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        (H200, {"rows": 33}, "33 rows are more than 32"),
        (H200, {"size": 40}, "40 rows or columns"),
        (H200, {"attended": 24}, "24 columns of a"),
        (VOLTA, {}, "compute capability 8.0"),
        (Target("cpu"), {}, "NVIDIA"),
    ],
)
def test_what_the_kernel_cannot_do_is_said(target, changes, reason):
    arrays, static = arrays_of(dataclasses.replace(BY_NAME["rows"], **changes).abstract())
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(partial(output_product, **static, backend="triton", target=target), **arrays)
    jax.eval_shape(partial(output_product, **static, target=target), **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": ((5, 32), jnp.float16)}, r"a must be \[B, A\] in bfloat16 or float32"),
        ({"matrix": ((64, 32), jnp.float32)}, r"matrix must be \[D, 32 \+ F\]"),
        ({"matrix": ((64, 160), jnp.int8)}, "matrix must be float32 where it has no scale, not int8"),
        ({"scale": ((64,), jnp.float32)}, "scale goes with 8-bit matrices, this is float32"),
        ({"matrix": ((64, 160), jnp.int8)}, "not int8"),
        ({"u": ((5, 64), jnp.float32)}, r"u must be float32 \[5, Q \+ 128\]"),
        ({"u": ((4, 224), jnp.float32)}, r"u must be float32 \[5, Q \+ 128\]"),
    ],
)
def test_bad_input_is_named(changes, message):
    arrays, static = arrays_of(BY_NAME["rows"].abstract())
    arrays |= {key: jax.ShapeDtypeStruct(*new) for key, new in changes.items()}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(output_product, **static), **arrays)


def test_at_least_one_part_is_asked_for():
    arrays, static = arrays_of(BY_NAME["rows"].abstract())
    with pytest.raises(ValueError, match="splits must be at least 1, not 0"):
        jax.eval_shape(partial(output_product, **static | {"splits": 0}), **arrays)


def test_bytes_count_everything_once():
    assert Case("count", 2, 32, 16, 48).bytes() == 2 * (2 + 32) * 64 + 4 * 2 * 32
