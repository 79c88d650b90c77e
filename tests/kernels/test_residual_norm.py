"""Sum and norm: the kernel equals the reference, the reference the formula written out, bad input is named."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas.dispatch import KernelUnavailable, Target
from kernels_pallas.residual_norm import residual_norm
from kernels_pallas.residual_norm.cases import REAL, SMALL, Case
from tests.kernels.comparing import H200, TOLERANCE, VOLTA, arrays_of, compiled, error, lowered

BY_NAME = {case.name: case for case in SMALL}
named = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)


def run(arguments, backend):
    arrays, static = arrays_of(arguments)
    return compiled(residual_norm, backend, **static)(**arrays)


@named
def test_kernel_equals_reference(case):
    arguments = case.make(1)
    expected, actual = (run(arguments, backend) for backend in ("reference", "interpret"))
    assert (actual[1] is None) == (not case.norm)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype) == ((case.rows, case.width), jnp.dtype(case.dtype))
        assert error(a, b) <= TOLERANCE[case.dtype]


@pytest.mark.smoke
def test_kernel_equals_reference_on_every_version():
    arguments = BY_NAME["odd_width"].make()
    for a, b in zip(run(arguments, "interpret"), run(arguments, "reference"), strict=True):
        assert error(a, b) <= TOLERANCE["float32"]


@named
def test_reference_is_the_formula(case):
    arguments = case.make(2)
    x, h = run(arguments, "reference")
    x64, parts, bias = (np.asarray(arguments[name], np.float64) for name in ("x", "parts", "bias"))
    total = x64 + parts.sum(axis=0) + bias[arguments["layer"]].sum(axis=0)
    assert error(x, total) <= TOLERANCE[case.dtype]
    if case.norm:
        rounded = np.asarray(x, np.float64)
        scale, shift = np.asarray(arguments["norm"][arguments["norm_layer"]], np.float64)
        deviation = np.sqrt(rounded.var(axis=1, keepdims=True) + 1e-5)
        expected = (rounded - rounded.mean(axis=1, keepdims=True)) / deviation * scale + shift
        assert error(h, expected) <= TOLERANCE[case.dtype]


@pytest.mark.parametrize("backend", ["reference", "interpret"])
def test_the_norm_is_that_of_the_rounded_sum(backend):
    """A sum that bfloat16 cannot tell from a constant row: the norm of what is kept is its shift alone."""
    case = dataclasses.replace(BY_NAME["bfloat16"], parts=1)
    arguments = case.make(3)
    arguments["x"][:] = 256
    arguments["bias"][arguments["layer"]] = 0
    arguments["parts"][:] = np.linspace(-0.4, 0.4, case.width, dtype=np.float32)
    x, h = run(arguments, backend)
    np.testing.assert_array_equal(np.asarray(x, np.float32), 256)
    shift = np.broadcast_to(arguments["norm"][arguments["norm_layer"], 1], h.shape)
    np.testing.assert_array_equal(np.asarray(h), shift)


def test_a_row_does_not_depend_on_its_company():
    arguments = BY_NAME["rows"].make(4)
    order = np.random.default_rng(4).permutation(5)
    shuffled = arguments | {"x": arguments["x"][order], "parts": arguments["parts"][:, order]}
    for a, b in zip(run(shuffled, "interpret"), run(arguments, "interpret"), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b)[order])


@pytest.mark.smoke
@pytest.mark.parametrize("case", [BY_NAME["odd_width"], *REAL], ids=lambda case: case.name)
def test_kernel_lowers_for_cuda_without_a_gpu(case):
    assert "residual_norm" in lowered(residual_norm, case.abstract())


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        (H200, {"width": 16384}, "a width of 16384"),
        (H200, {"parts": 65}, "65 parts"),
        (VOLTA, {}, "compute capability 8.0"),
        (Target("cpu"), {}, "NVIDIA"),
    ],
)
def test_what_the_kernel_cannot_do_is_said(target, changes, reason):
    arrays, static = arrays_of(dataclasses.replace(BY_NAME["rows"], **changes).abstract())
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(partial(residual_norm, **static, backend="triton", target=target), **arrays)
    jax.eval_shape(partial(residual_norm, **static, target=target), **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": ((5, 64), jnp.float16)}, r"x must be \[B, D\] in bfloat16 or float32"),
        ({"parts": ((4, 5, 64), jnp.bfloat16)}, r"parts must be float32 \[S, 5, 64\]"),
        ({"parts": ((4, 4, 64), jnp.float32)}, r"parts must be float32 \[S, 5, 64\]"),
        ({"bias": ((3, 32), jnp.float32)}, r"bias must be float32 \[L, 64\]"),
        ({"bias": ((3, 64), jnp.bfloat16)}, "not bfloat16"),
        ({"bias": ((1, 64), jnp.float32)}, "layer 1 of 1 in bias"),
        ({"norm": ((3, 64), jnp.float32)}, r"norm must be float32 \[M, 2, 64\]"),
        ({"norm": ((2, 2, 64), jnp.float32)}, "layer 2 of 2 in norm"),
    ],
)
def test_bad_input_is_named(changes, message):
    arrays, static = arrays_of(BY_NAME["rows"].abstract())
    arrays |= {key: jax.ShapeDtypeStruct(*new) for key, new in changes.items()}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(residual_norm, **static), **arrays)


def test_bytes_count_everything_once():
    assert Case("count", 2, 32, 3, biases=2).bytes() == 2 * 32 * (3 * 2 + 3 * 4) + (2 + 2) * 32 * 2
