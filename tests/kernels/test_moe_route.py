"""The router: the kernels equal the reference, and choose as `lax.top_k` does whatever the logits are."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.dispatch import KernelUnavailable, Target
from kernels_pallas.moe_route import moe_route
from kernels_pallas.moe_route.cases import REAL, SMALL, Case
from tests.kernels.comparing import H200, arrays_of, error, lowered

BY_NAME = {case.name: case for case in SMALL}
both = pytest.mark.parametrize("backend", ["reference", "interpret"])


compiled = jax.jit(moe_route, static_argnames=("top", "row", "backend"))


def run(arguments: dict, backend: str) -> tuple:
    return compiled(**arguments, backend=backend)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_kernels_equal_the_reference(case):
    arguments = case.make(1)
    (logits, experts, weights), actual = (run(arguments, backend) for backend in ("reference", "interpret"))
    assert [(x.shape, x.dtype) for x in actual] == [(x.shape, x.dtype) for x in (logits, experts, weights)]
    assert error(actual[0], logits) <= 2e-6 and error(actual[2], weights) <= 2e-6
    np.testing.assert_array_equal(actual[1], experts)


@both
def test_it_is_the_formula(backend):
    arguments = BY_NAME["odd_sizes"].make(2)
    x, router, bias = (np.asarray(arguments[name], np.float64) for name in ("x", "router", "bias"))
    logits, experts, weights = run(arguments, backend)
    expected = x @ router.T + bias[arguments["row"]]
    assert error(logits, expected) <= 2e-6
    order = np.argsort(-expected, axis=1)[:, : arguments["top"]]
    np.testing.assert_array_equal(experts, order)
    best = np.exp(np.take_along_axis(expected, order, axis=1))
    assert error(weights, best / best.sum(axis=1, keepdims=True)) <= 2e-6


value = st.sampled_from([-np.inf, -1.5, 0.0, 0.5, 2.0, np.inf, np.nan])


@given(logits=st.lists(value, min_size=5, max_size=5))
@settings(max_examples=60)
def test_ties_infinities_and_nan_are_chosen_as_top_k_does(logits):
    # A token of zeros has the biases as its logits.
    case = Case("ties", 1, experts=5, model=16, top=3, dtype="float32")
    arguments = case.make() | {"x": np.zeros((1, 16), np.float32)}
    arguments["bias"][case.row] = logits
    (_, expected, weights), (_, experts, shares) = (run(arguments, backend) for backend in ("reference", "interpret"))
    assert sorted(set(np.asarray(experts)[0])) == sorted(np.asarray(experts)[0]) and np.all(experts < case.experts)
    if not np.any(np.isnan(logits)):
        np.testing.assert_array_equal(experts, expected)
        np.testing.assert_allclose(shares, weights, rtol=1e-6)
    else:
        assert np.isnan(shares).all() and np.isnan(weights).all()


@pytest.mark.smoke
@pytest.mark.parametrize("case", [BY_NAME["odd_sizes"], *REAL], ids=lambda case: case.name)
def test_kernels_lower_for_cuda_without_a_gpu(case):
    text = lowered(moe_route, case.abstract())
    assert "moe_route_parts" in text and "moe_route_choose" in text


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        (H200, {"model": 72}, "72 columns"),
        (H200, {"experts": 257}, "257 experts"),
        (Target("cpu"), {}, "NVIDIA"),
    ],
)
def test_what_the_kernels_cannot_do_is_said(target, changes, reason):
    arrays, static = arrays_of(dataclasses.replace(BY_NAME["bfloat16"], **changes).abstract())
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(lambda a: moe_route(**a, **static, backend="triton", target=target), arrays)
    jax.eval_shape(lambda a: moe_route(**a, **static, target=target), arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": jax.ShapeDtypeStruct((8, 128), jnp.float16)}, r"x must be \[T, D\] in bfloat16 or float32"),
        ({"router": jax.ShapeDtypeStruct((8, 64), jnp.bfloat16)}, r"router must be bfloat16\[E, 128\]"),
        ({"bias": jax.ShapeDtypeStruct((2, 7), jnp.bfloat16)}, r"bias must be bfloat16\[R, 8\]"),
        ({"row": 2}, r"row must be in 0\.\.1, not 2"),
        ({"top": 9}, r"top must be in 1\.\.8, not 9"),
    ],
)
def test_bad_input_is_named(changes, message):
    arrays, static = arrays_of(BY_NAME["bfloat16"].abstract() | changes)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda a: moe_route(**a, **static), arrays)
