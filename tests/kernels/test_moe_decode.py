"""Chosen experts: the kernel equals the reference, the reference equals the formula written out, bad input is named."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.dispatch import KernelUnavailable, Target, overflows
from kernels_pallas.moe_decode import moe_decode
from kernels_pallas.moe_decode.cases import REAL, SMALL, Case
from tests.kernels.comparing import H200, TOLERANCE, arrays_of, assert_company_does_not_matter, error, lowered
from tests.kernels.experts import assert_parts_sum_up, assert_slots_are_apart, definition, exact_inputs

A100 = Target("cuda", 80, 108)
BY_NAME = {case.name: case for case in SMALL}
named = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
both = pytest.mark.parametrize("backend", ["reference", "interpret"])


compiled = jax.jit(moe_decode, static_argnames=("layer", "backend"))


def run(arguments, backend):
    return compiled(**arguments, backend=backend)


@named
def test_kernel_equals_reference(case):
    arguments = case.make(1)
    expected, actual = (run(arguments, backend) for backend in ("reference", "interpret"))
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert error(actual, expected) <= TOLERANCE[case.dtype]


@pytest.mark.smoke
def test_kernel_equals_reference_on_every_version():
    arguments = BY_NAME["float8_float32"].make()
    assert error(run(arguments, "interpret"), run(arguments, "reference")) <= TOLERANCE["float32"]


@named
def test_reference_is_the_formula(case):
    arguments = case.make(2)
    assert error(run(arguments, "reference"), definition(arguments)) <= TOLERANCE[case.dtype]


TOKENS, TOP, EXPERTS = 6, 2, 5
# A row may even choose an expert twice; -1 is not here.
routings = st.lists(st.integers(-1, EXPERTS - 1), min_size=TOKENS * TOP, max_size=TOKENS * TOP)


@given(routing=routings, tokens=st.sampled_from([1, TOKENS]), data=st.data(), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_routing_and_weights(routing, tokens, data, seed):
    arguments = Case("random", tokens, TOP, EXPERTS, 32, 16, dtype="float32").make(seed)
    experts = np.array(routing, np.int32).reshape(TOKENS, TOP)[:tokens]
    weight = st.floats(-2, 2, width=32)
    weights = data.draw(st.lists(weight, min_size=experts.size, max_size=experts.size))
    unchosen = ~np.isin(np.arange(EXPERTS), experts)
    random = np.random.default_rng(seed)
    for name in ("up", "down"):
        matrices = random.standard_normal(arguments[name].shape, np.float32)
        matrices[unchosen] = np.nan
        arguments[name] = matrices
    weights = np.where(experts < 0, np.float32(np.nan), np.array(weights, np.float32).reshape(experts.shape))
    arguments |= {"experts": experts, "weights": weights}
    expected = definition(arguments)
    scale = np.max(np.abs(definition(arguments | {"weights": np.ones_like(weights)})))
    for backend in ("reference", "interpret"):
        # Weights that nearly cancel leave the rounding of what they cancel.
        assert np.max(np.abs(np.asarray(run(arguments, backend)) - expected)) <= TOLERANCE["float32"] * 4 * scale


@both
def test_halves_of_the_experts_sum_up(backend):
    assert_parts_sum_up(BY_NAME["adapters"], partial(run, backend=backend))


@both
@pytest.mark.parametrize("name", ["nowhere", "nowhere_by_choice"])
def test_without_a_choice_that_is_here_there_are_zeros(name, backend):
    assert not np.any(run(BY_NAME[name].make(), backend))


@pytest.mark.parametrize("name", ["float8", "float8_one_token", "float8_float32"])
def test_float8_is_exact_where_the_inputs_are(name):
    case = BY_NAME[name]
    arguments = exact_inputs(case, 5)
    # Multiples of 1/4; where gelu is 0 in float32, float64 leaves some 1e-14.
    expected = np.asarray(np.round(definition(arguments) * 4) / 4, jnp.dtype(case.dtype))
    assert np.any(expected)
    for backend in ("reference", "interpret"):
        np.testing.assert_array_equal(run(arguments, backend), expected)


def test_a_token_does_not_depend_on_its_company():
    assert_company_does_not_matter(run, BY_NAME["random"].make(3), "x", "experts", "weights")


@both
def test_a_broken_token_breaks_itself_alone(backend):
    arguments = BY_NAME["one_expert"].make(4)
    broken = arguments | {"x": arguments["x"].copy()}
    broken["x"][2] = np.nan
    expected, actual = (np.asarray(run(each, backend)) for each in (arguments, broken))
    others = np.arange(len(expected)) != 2
    assert np.all(np.isnan(actual[2]))
    np.testing.assert_array_equal(actual[others], expected[others])


@both
def test_a_token_takes_the_pairs_of_its_slot_and_no_others(backend):
    assert_slots_are_apart(BY_NAME["adapters"].make(6), partial(run, backend=backend))


@pytest.mark.smoke
@pytest.mark.parametrize("case", [BY_NAME["odd_sizes"], BY_NAME["float8"], *REAL], ids=lambda case: case.name)
def test_kernel_lowers_for_cuda_without_a_gpu(case):
    text = lowered(moe_decode, case.abstract())
    assert "moe_decode_up" in text and "moe_decode_down" in text


def abstract(case: Case, **changes) -> dict:
    return dataclasses.replace(case, **changes).abstract()


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        (H200, {"inner": 40}, "40 rows or columns"),
        (H200, {"model": 72}, "72 rows or columns"),
        (H200, {"tokens": 129, "top": 8}, "1032 choices"),
        (H200, {"matrix_dtype": "int4", "group": 16}, "groups of 16 columns are not a multiple of 32"),
        (A100, {"matrix_dtype": "float8_e4m3fn"}, "float8 needs compute capability 8.9"),
        (Target("cpu"), {}, "NVIDIA"),
    ],
)
def test_what_the_kernel_cannot_do_is_said(target, changes, reason):
    arguments = abstract(BY_NAME["random"], **changes)
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(lambda a: moe_decode(**a, backend="triton", target=target), arguments)
    jax.eval_shape(lambda a: moe_decode(**a, target=target), arguments)


@pytest.mark.parametrize(("experts", "refused"), [(2**10, False), (2**10 + 1, True), (2**11, True), (2**11 + 1, False)])
def test_one_byte_matrices_whose_offsets_overflow_are_refused(experts, refused):
    up, down = (jax.ShapeDtypeStruct((experts, *shape), jnp.float8_e4m3fn) for shape in ((2048, 1024), (16, 16)))
    assert any("overflow" in reason for reason in overflows((up, down))) == refused


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("adapters", {"slots": ((7,), jnp.int32)}, r"slots must be int32\[8\], not int32\[7\]"),
        ("adapters", {"up_b": ((2, 8, 128, 3, 1), jnp.float32)}, r"up_b must be float32\["),
        ("adapters", {"down_a": ((2, 8, 3, 2, 64), jnp.bfloat16)}, r"down_a must be float32\["),
        ("random", {"x": ((8, 128), jnp.float16)}, r"x must be \[T, D\] in bfloat16 or float32"),
        ("random", {"x": ((0, 128), jnp.float32)}, r"not float32\[0, 128\]"),
        ("random", {"x": ((8, 64), jnp.float32)}, r"up must be \[E, 2 I, 64\]"),
        ("random", {"down": ((8, 128, 128), jnp.float32)}, r"down must be \[8, 128, 64\]"),
        ("random", {"up": ((8, 128, 128), jnp.bfloat16)}, "must be float32 like x"),
        ("random", {"experts": ((7, 2), jnp.int32)}, r"experts must be int32 \[8, k\]"),
        ("random", {"experts": ((8, 2), jnp.uint32)}, "experts must be int32"),
        ("random", {"weights": ((8, 3), jnp.float32)}, r"weights must be float32\[8, 2\]"),
        ("random", {"weights": ((8, 2), jnp.bfloat16)}, "weights must be float32"),
        ("random", {"down_scale": ((8, 128), jnp.float32)}, "scales go with matrices of few bits, these are float32"),
        ("float8", {"up_scale": ((8, 64), jnp.float32)}, r"need up_scale, float32\[8, 128\]"),
        ("float8", {"down_scale": ((8, 128), jnp.bfloat16)}, "need down_scale"),
        ("int4", {"up_scale": ((8, 256), jnp.float32)}, r"int4 matrices need up_scale of groups, \[8, 256, groups\]"),
        ("int4", {"up_scale": ((8, 256, 3), jnp.bfloat16)}, r"up_scale must be \[8, 256, groups of 256 columns\]"),
        ("int4", {"down_scale": ((8, 256, 1), jnp.float16)}, r"down_scale must be .*not float16\[8, 256, 1\]"),
    ],
)
def test_bad_input_is_named(name, changes, message):
    arguments, static = arrays_of(BY_NAME[name].abstract())
    arguments |= {key: jax.ShapeDtypeStruct(*new) for key, new in changes.items()}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda a: moe_decode(**a, **static), arguments)


def test_float8_matrices_need_scales():
    arguments = BY_NAME["float8"].abstract()
    del arguments["up_scale"]
    with pytest.raises(ValueError, match="need up_scale"):
        jax.eval_shape(lambda a: moe_decode(**a), arguments)


def test_choices_that_are_not_here_count_no_bytes_and_no_operations():
    whole, nowhere = (Case("count", 4, 2, routing=routing) for routing in ("random", "nowhere"))
    half = Case("count", 4, 2, experts=4, elsewhere=4)
    token = 4 * (2 * 128 * 2 + 2 * 8)
    assert nowhere.flops() == 0 < half.flops() < whole.flops() == 2 * 4 * 2 * 3 * 128 * 64
    assert nowhere.bytes() == token < half.bytes() <= token + 4 * 3 * 64 * 128 * 2


def test_bytes_count_each_chosen_expert_once():
    case = Case("count", 4, 2, model=64, inner=32, routing="same")
    assert case.bytes() == 2 * 3 * 32 * 64 * 2 + 4 * (2 * 64 * 2 + 2 * 8)
    scaled = dataclasses.replace(case, routing="apart", matrix_dtype="float8_e4m3fn")
    assert scaled.bytes() == 8 * (3 * 32 * 64 + 4 * (64 + 64)) + 4 * (2 * 64 * 2 + 2 * 8)
