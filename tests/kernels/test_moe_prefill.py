"""Experts of many tokens: the kernels equal the reference, the reference equals the formula written out, whatever the
routing; how much is computed has a bound."""

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
from kernels_pallas.moe_prefill import moe_prefill, triton
from kernels_pallas.moe_prefill.cases import REAL, SMALL, Case
from tests.kernels.comparing import H200, TOLERANCE, arrays_of, error, lowered
from tests.kernels.experts import assert_parts_sum_up, assert_slots_are_apart, definition, exact_inputs

A100 = Target("cuda", 80, 108)
BY_NAME = {case.name: case for case in SMALL}
RARE = ("adapters_float8", "adapters_one_expert", "int4_small_groups")  # whose halves are in other cases
named = pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=[pytest.mark.slow] * (c.name in RARE)) for c in SMALL]
)
both = pytest.mark.parametrize("backend", ["reference", "interpret"])


compiled = jax.jit(moe_prefill, static_argnames=("layer", "backend"))


def run(arguments, backend):
    return compiled(**arguments, backend=backend)


@named
def test_kernels_equal_the_reference(case):
    arguments = case.make(1)
    expected, actual = (run(arguments, backend) for backend in ("reference", "interpret"))
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert error(actual, expected) <= TOLERANCE[case.dtype]


@pytest.mark.smoke
def test_kernels_equal_the_reference_on_every_version():
    arguments = BY_NAME["float8_float32"].make()
    assert error(run(arguments, "interpret"), run(arguments, "reference")) <= TOLERANCE["float32"]


@named
def test_the_reference_is_the_formula(case):
    arguments = case.make(2)
    assert error(run(arguments, "reference"), definition(arguments)) <= TOLERANCE[case.dtype]


TOKENS, TOP, EXPERTS = 90, 2, 3
ROUTED = Case("routed", TOKENS, TOP, EXPERTS, 32, 16, dtype="float32")
# How often -1, which is not here, and each expert come: none, all, at the ends of steps and of tiles, all of them
# chosen twice by a row.
shares = st.lists(st.integers(0, TOKENS * TOP), min_size=EXPERTS, max_size=EXPERTS)


@given(cuts=shares, seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_routing(cuts, seed):
    random = np.random.default_rng(seed)
    experts = np.searchsorted(sorted(cuts), np.arange(TOKENS * TOP), side="right").astype(np.int32) - 1
    experts = random.permutation(experts).reshape(TOKENS, TOP)
    arguments = ROUTED.make(seed) | {"experts": experts}
    arguments["weights"] = np.where(experts < 0, np.float32(np.nan), arguments["weights"])
    for name in ("up", "down"):
        matrices = random.standard_normal(arguments[name].shape, np.float32)
        matrices[~np.isin(np.arange(EXPERTS), experts)] = np.nan
        arguments[name] = matrices
    expected = definition(arguments)
    for backend in ("reference", "interpret"):
        assert error(run(arguments, backend), expected) <= 2 * TOLERANCE["float32"]


@pytest.mark.parametrize("size", [31, 32, 33, 96, 128, 129, 160], ids=lambda size: f"{size} choices")
def test_an_expert_whose_choices_end_beside_a_step_or_a_tile(size):
    others = np.arange(TOKENS * TOP - size) % (EXPERTS - 1)
    experts = np.append(others, [EXPERTS - 1] * size).astype(np.int32).reshape(TOKENS, TOP)
    arguments = ROUTED.make(3) | {"experts": experts}
    assert error(run(arguments, "interpret"), definition(arguments)) <= 2 * TOLERANCE["float32"]


@both
def test_halves_of_the_experts_sum_up(backend):
    assert_parts_sum_up(BY_NAME["adapters"], partial(run, backend=backend))


@both
def test_without_a_choice_that_is_here_there_are_zeros(backend):
    assert not np.any(run(BY_NAME["nowhere"].make(), backend))


def test_float8_is_exact_where_the_inputs_are():
    arguments = exact_inputs(BY_NAME["float8_float32"], 5)
    # Multiples of 1/4; where gelu is 0 in float32, float64 leaves some 1e-14.
    expected = np.asarray(np.round(definition(arguments) * 4) / 4, np.float32)
    assert np.any(expected)
    for backend in ("reference", "interpret"):
        np.testing.assert_array_equal(run(arguments, backend), expected)


@both
def test_a_broken_token_breaks_itself_alone(backend):
    arguments = BY_NAME["one_expert"].make(4)
    broken = arguments | {"x": arguments["x"].copy()}
    broken["x"][2] = np.nan
    expected, actual = (np.asarray(run(each, backend)) for each in (arguments, broken))
    others = np.arange(len(expected)) != 2
    assert np.all(np.isnan(actual[2]))
    np.testing.assert_array_equal(actual[others], expected[others])


@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=9), absent=st.integers(0, 300))
def test_the_bounds_hold_for_any_routing_and_are_reached(sizes, absent):
    choices, experts = sum(sizes), len(sizes)
    programs = sum(-(-size // triton.TOKENS) for size in sizes)
    assert programs <= triton.tiles(choices, experts) <= triton.tiles(choices + absent, experts)
    assert triton.computed(sizes) <= triton.most_computed(choices + absent, experts)
    assert choices <= triton.computed(sizes) <= triton.most_computed(choices, experts)
    worst = [1] * min(choices, experts)
    worst[:1] = [choices - len(worst) + 1] if worst else []
    assert triton.computed(worst) == triton.most_computed(choices, experts)


def test_an_image_prefix_of_moondream3_computes_a_third_too_many_at_worst():
    choices = 730 * 8
    assert triton.most_computed(choices, 64) <= 1.35 * choices
    even = [choices // 64 + (expert < choices % 64) for expert in range(64)]
    assert triton.computed(even) <= 1.06 * choices
    assert triton.most_computed(4 * choices, 64) <= 1.09 * 4 * choices


@both
def test_a_token_takes_the_pairs_of_its_slot_and_no_others(backend):
    assert_slots_are_apart(BY_NAME["adapters"].make(6), partial(run, backend=backend))


@pytest.mark.smoke
@pytest.mark.parametrize("case", [BY_NAME["odd_sizes"], BY_NAME["int8"], *REAL], ids=lambda case: case.name)
def test_kernels_lower_for_cuda_without_a_gpu(case):
    text = lowered(moe_prefill, case.abstract())
    assert all(f"moe_prefill_{kernel}" in text for kernel in ("order", "up", "down"))


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        (H200, {"inner": 40}, "40 rows or columns"),
        (H200, {"model": 72}, "72 rows or columns"),
        (A100, {"matrix_dtype": "float8_e4m3fn"}, "float8 needs compute capability 8.9"),
        (Target("cpu"), {}, "NVIDIA"),
    ],
)
def test_what_the_kernels_cannot_do_is_said(target, changes, reason):
    arguments = dataclasses.replace(BY_NAME["random"], **changes).abstract()
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(lambda a: moe_prefill(**a, backend="triton", target=target), arguments)
    jax.eval_shape(lambda a: moe_prefill(**a, target=target), arguments)


def test_int8_needs_no_float8_of_the_device():
    arguments = BY_NAME["int8"].abstract()
    jax.eval_shape(lambda a: moe_prefill(**a, backend="triton", target=A100), arguments)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("adapters", {"slots": ((7,), jnp.int32)}, r"slots must be int32\[40\], not int32\[7\]"),
        ("adapters", {"up_b": ((2, 8, 128, 3, 1), jnp.float32)}, r"up_b must be float32\["),
        ("adapters", {"down_a": ((2, 8, 3, 2, 64), jnp.bfloat16)}, r"down_a must be float32\["),
        ("random", {"x": ((40, 128), jnp.float16)}, r"x must be \[T, D\] in bfloat16 or float32"),
        ("random", {"experts": ((7, 2), jnp.int32)}, r"experts must be int32 \[40, k\]"),
        ("int8", {"up_scale": ((8, 64), jnp.float32)}, r"int8 matrices need up_scale, float32\[8, 128\]"),
    ],
)
def test_bad_input_is_named(name, changes, message):
    arguments, static = arrays_of(BY_NAME[name].abstract())
    arguments |= {key: jax.ShapeDtypeStruct(*new) for key, new in changes.items()}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda a: moe_prefill(**a, **static), arguments)
