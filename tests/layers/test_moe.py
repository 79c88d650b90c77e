"""Experts: routing, and every way to compute them against a plain loop."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.layers import moe
from jaxphoton.layers.adapters import Pairs
from jaxphoton.layers.moe import ExpertPairs, ExpertParams
from jaxphoton.layers.weight import Dense, RowScaled, Weight
from tests.layers.forms import dense_of, in_int4, in_int4_symmetric, in_int8

EXPERTS, DIM, INNER = 8, 12, 6
GROUPED = {"fc1_w": {"group": 4}, "fc2_w": {"group": 2}}
FEW_BITS = {in_int8: {"fc1_w": {}, "fc2_w": {}}, in_int4_symmetric: GROUPED, in_int4: GROUPED}
erf = np.vectorize(math.erf)
apply = jax.jit(moe.apply, static_argnames="mix")


def drawn(seed: int, dtype=jnp.float32, float8: bool = False) -> ExpertParams:
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.normal(0, 0.5, shape), jnp.float8_e4m3fn if float8 else dtype)

    scales = [jnp.asarray(random.uniform(0.5, 2, (EXPERTS, rows)), jnp.float32) for rows in (2 * INNER, DIM)]
    matrices = normal(EXPERTS, 2 * INNER, DIM), normal(EXPERTS, DIM, INNER)
    up, down = map(RowScaled, matrices, scales) if float8 else map(Dense, matrices)
    return ExpertParams(Dense(jnp.asarray(random.normal(0, 1, (EXPERTS, DIM)), dtype)), up, down)


def tokens(count: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0, 1, (count, DIM)), jnp.float32)


def stored(weight: Weight) -> np.ndarray:
    """The numbers of a weight, float64."""
    assert isinstance(weight, Dense | RowScaled)
    matrix = np.asarray(weight.matrix.astype(jnp.float32), np.float64)
    return matrix if isinstance(weight, Dense) else matrix * np.asarray(weight.scale, np.float64)[..., None]


def loop(params: ExpertParams, x, experts, weights) -> np.ndarray:
    """One expert of one token after the other, float64."""
    up, down = map(stored, (params.fc1_w, params.fc2_w))
    out = np.zeros(x.shape)
    for t, j in np.ndindex(*experts.shape):
        hidden = up[experts[t, j]] @ np.asarray(x[t], np.float64)
        u, g = hidden[:INNER], hidden[INNER:]
        out[t] += float(weights[t, j]) * (down[experts[t, j]] @ (u * (1 + erf(u / 2**0.5)) / 2 * (g + 1)))
    return out


def adapted(params: ExpertParams, slots: list[int], seed: int = 7, rank: int = 2) -> ExpertParams:
    """The same with three slots of pairs; `slots` are those of rows."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.normal(0, 0.5, shape), jnp.float32)

    fc1 = Pairs(normal(2, EXPERTS, 3, rank, DIM), normal(2, EXPERTS, 2 * INNER, 3, rank))
    fc2 = Pairs(normal(2, EXPERTS, 3, rank, INNER), normal(2, EXPERTS, DIM, 3, rank))
    return dataclasses.replace(params, adapters=ExpertPairs(fc1, fc2, jnp.asarray(slots, jnp.int32), 1))


def merged(params: ExpertParams, slot: int) -> ExpertParams:
    """Matrices with the pairs of one slot added to them, which is what an adapter means."""
    assert params.adapters is not None
    if slot < 0:
        return dataclasses.replace(params, adapters=None)

    def added(weight: Weight, pairs: Pairs) -> Dense:
        return Dense(jnp.asarray(stored(weight) + np.asarray(pairs.b[1, :, :, slot] @ pairs.a[1, :, slot], np.float64)))

    fc1, fc2 = added(params.fc1_w, params.adapters.fc1), added(params.fc2_w, params.adapters.fc2)
    return dataclasses.replace(params, fc1_w=fc1, fc2_w=fc2, adapters=None)


def of_device(params: ExpertParams, first: int, count: int) -> ExpertParams:
    """All of the router, and `count` experts from number `first` on."""
    own = slice(first, first + count)
    experts = {name: jax.tree.map(lambda x: x[own], getattr(params, name)) for name in ("fc1_w", "fc2_w")}
    if (adapters := params.adapters) is not None:
        pairs = {name: jax.tree.map(lambda x: x[:, own], getattr(adapters, name)) for name in ("fc1", "fc2")}
        experts["adapters"] = dataclasses.replace(adapters, **pairs)
    return dataclasses.replace(params, **experts)


@partial(jax.jit, static_argnames="chosen")
def routed(params: ExpertParams, x: jax.Array, chosen: int) -> moe.Route:
    return moe.route(params.router_w, jnp.zeros((1, EXPERTS), jnp.float32), 0, chosen, x)


@pytest.mark.parametrize("count", [1, 4, 5, 260], ids=lambda n: f"{n} tokens")
@pytest.mark.parametrize("float8", [False, True], ids=["float32", "float8"])
@pytest.mark.parametrize("mix", [moe.mix_dense, partial(moe.mix, backend="reference")], ids=["dense", "by size"])
def test_experts_equal_a_plain_loop(mix, count, float8):
    params, x = drawn(1, float8=float8), tokens(count)
    route = routed(params, x, 2)
    got = apply(params, route, x, mix)
    np.testing.assert_allclose(got, loop(params, x, route.experts, route.weights), atol=2e-5)


@pytest.mark.parametrize("length", [1, 70], ids=lambda n: f"{n} tokens a row")
@pytest.mark.parametrize("float8", [False, True], ids=["float32", "float8"])
@pytest.mark.parametrize("mix", [moe.mix_dense, partial(moe.mix, backend="reference")], ids=["dense", "by size"])
def test_every_row_has_the_experts_of_its_adapter(mix, length, float8):
    slots = [2, -1, 0, 2]
    params = adapted(drawn(1, float8=float8), slots)
    x = tokens(len(slots) * length).reshape(len(slots), length, DIM)
    route = routed(params, x, 2)
    got = apply(params, route, x, mix)
    for row, slot in enumerate(slots):
        expected = loop(merged(params, slot), x[row], route.experts[row], route.weights[row])
        np.testing.assert_allclose(got[row], expected, atol=5e-5)


@given(first=st.integers(0, 9), count=st.integers(1, 9), experts=st.lists(st.integers(-1, 20), min_size=8, max_size=8))
def test_choices_among_a_devices_own_experts(first, count, experts):
    own = moe.own_choices(jnp.asarray(experts, jnp.int32), jnp.int32(first), count)
    assert own.dtype == jnp.int32
    assert own.tolist() == [number - first if first <= number < first + count else -1 for number in experts]


@pytest.mark.parametrize("mix", [moe.mix_dense, partial(moe.mix, backend="reference")], ids=["dense", "by size"])
def test_devices_with_a_part_of_the_experts_sum_up(mix):
    params, x, each = adapted(drawn(1), [n % 4 - 1 for n in range(40)]), tokens(40), EXPERTS // 2
    route, total = routed(params, x, 2), jnp.zeros(x.shape)
    for first in (0, each):
        own = moe.own_choices(route.experts, first, each)
        of_own = dataclasses.replace(route, experts=own, weights=jnp.where(own < 0, jnp.nan, route.weights))
        total += apply(of_device(params, first, each), of_own, x, mix)
    np.testing.assert_allclose(total, apply(params, route, x, mix), atol=5e-5)


def test_the_plain_form_looks_at_no_choice_that_is_not_here():
    nowhere, weights = jnp.full((3, 2), -1, jnp.int32), jnp.full((3, 2), jnp.nan, jnp.float32)
    assert not np.any(jax.jit(moe.mix_dense)(drawn(1), tokens(3), nowhere, weights))


@pytest.mark.parametrize("count", [1, 40], ids=lambda n: f"{n} tokens")
@pytest.mark.parametrize("form", [in_int8, in_int4_symmetric, in_int4])
def test_experts_in_few_bits_are_what_their_numbers_say(form, count):
    params, x = drawn(6), tokens(count)
    stored = {name: form(getattr(params, name).matrix, **groups) for name, groups in FEW_BITS[form].items()}
    few = dataclasses.replace(params, **stored)
    same = dataclasses.replace(params, **{name: weight.dense(jnp.float32) for name, weight in stored.items()})
    route = routed(params, x, 2)
    expected = loop(same, x, route.experts, route.weights)
    for mix in (moe.mix_dense, partial(moe.mix, backend="reference")):
        np.testing.assert_allclose(apply(few, route, x, mix), expected, atol=5e-5)


def test_the_kernel_follows_from_the_choices_an_expert(monkeypatch):
    asked = []
    for name in ("moe_decode", "moe_prefill"):
        monkeypatch.setattr(moe, name, lambda x, *args, name=name, **options: asked.append((name, len(x))) or x)
    params, most = drawn(1), moe.FEW * EXPERTS // 2
    for held in (params, of_device(params, 2, 2)):  # of a part of the experts as of all
        asked.clear()
        for count in (1, most, most + 1):
            x = tokens(count)
            moe.apply(held, routed(params, x, 2), x, moe.mix)
        assert asked == [("moe_decode", 1), ("moe_decode", most), ("moe_prefill", most + 1)]


def test_all_tokens_at_one_expert():
    params, x = drawn(2), tokens(50)
    experts = jnp.full((50, 2), 3, jnp.int32).at[:, 1].set(jnp.arange(50, dtype=jnp.int32) % 2)
    weights = jnp.full((50, 2), 0.5, jnp.float32)
    expected = loop(params, x, experts, weights)
    for mix in (moe.mix_dense, partial(moe.mix, backend="reference")):
        np.testing.assert_allclose(jax.jit(mix)(params, x, experts, weights), expected, atol=2e-5)


def test_an_expert_that_nobody_chose_may_hold_anything():
    params, x = drawn(3), tokens(3)
    route = moe.route(params.router_w, jnp.zeros((1, EXPERTS), jnp.float32).at[0, 5].set(-1e9), 0, 2, x)
    clean = apply(params, route, x, moe.mix_dense)
    up, down = dense_of(params.fc1_w).matrix.at[5].set(jnp.inf), dense_of(params.fc2_w).matrix.at[5].set(jnp.nan)
    broken = dataclasses.replace(params, fc1_w=Dense(up), fc2_w=Dense(down))
    for mix in (moe.mix_dense, partial(moe.mix, backend="reference")):
        np.testing.assert_allclose(apply(broken, route, x, mix), clean, atol=1e-6)


def test_the_router_takes_the_best_logits_with_their_bias_and_weighs_them_alone():
    x = jnp.ones((1, 1), jnp.float32)
    weight = jnp.asarray([[1.0], [5.0], [2.0], [4.0]], jnp.float32)
    bias = jnp.asarray([0.0, 0.0, 2.5, -2.0], jnp.float32)
    route = moe.route(Dense(weight), jnp.stack([bias + 1, bias]), 1, 2, x)
    np.testing.assert_allclose(route.logits, [[1.0, 5.0, 4.5, 2.0]])
    assert route.experts.tolist() == [[1, 2]]
    np.testing.assert_allclose(route.weights, np.exp([[5.0, 4.5]]) / np.exp([5.0, 4.5]).sum(), rtol=1e-6)
    np.testing.assert_allclose(moe.gap(route), [2.5])


def test_of_equal_logits_the_first_are_taken_and_the_gap_is_nothing():
    route = moe.route(
        Dense(jnp.zeros((4, 1), jnp.float32)), jnp.zeros((1, 4), jnp.float32), 0, 2, jnp.ones((1, 1), jnp.float32)
    )
    assert route.experts.tolist() == [[0, 1]]
    assert route.weights.tolist() == [[0.5, 0.5]]
    assert moe.gap(route).tolist() == [0.0]


def test_nothing_is_left_out_where_all_are_chosen():
    params, x = drawn(4), tokens(2)
    assert np.isinf(moe.gap(routed(params, x, EXPERTS))).all()


def test_a_bfloat16_model_routes_in_float32():
    params, x = drawn(5, jnp.bfloat16), tokens(3).astype(jnp.bfloat16)
    route = moe.route(params.router_w, jnp.zeros((1, EXPERTS), jnp.bfloat16), 0, 2, x)
    assert route.logits.dtype == route.weights.dtype == jnp.float32
    exact = x.astype(jnp.float32) @ dense_of(params.router_w).matrix.astype(jnp.float32).T
    np.testing.assert_allclose(route.logits, exact, rtol=1e-5, atol=1e-5)
    for mix in (moe.mix_dense, partial(moe.mix, backend="reference")):
        assert jax.eval_shape(apply, params, route, x, mix).dtype == jnp.bfloat16
