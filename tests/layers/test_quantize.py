"""Few bits: how far a matrix in them may be from what it was, whatever it holds."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.config.quantization import KINDS
from jaxphoton.layers.grouped import Grouped, pack, unpack
from jaxphoton.layers.quantize import form_of, quantize
from jaxphoton.layers.spec import GroupedForm, RowScaledForm
from jaxphoton.layers.weight import RowScaled

ROWS, COLUMNS = 4, 128
kinds = pytest.mark.parametrize("kind", KINDS)


@st.composite
def matrices(draw) -> np.ndarray:
    """Of ordinary and of wild numbers, some rows of them zeros, one number or of one sign."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    drawn = random.standard_t(draw(st.sampled_from([2, 5, 100])), (ROWS, COLUMNS))
    drawn *= 10.0 ** draw(st.sampled_from([-20, -3, 0, 4, 35]))
    shape = draw(st.sampled_from(["any", "zeros", "one", "positive"]))
    if shape == "zeros":
        drawn[1] = 0
    elif shape == "one":
        drawn[2, 1:] = 0
    elif shape == "positive":
        drawn = np.abs(drawn)
    return drawn.astype(jnp.bfloat16).astype(np.float32)


@partial(jax.jit, static_argnums=1)
def stored(matrix, form):
    weight = quantize(matrix, form)
    return weight, weight.dense(jnp.float32).matrix


@kinds
@given(matrix=matrices())
def test_no_number_is_further_away_than_its_levels_allow(kind, matrix):
    form = form_of(kind, [COLUMNS])
    weight, values = stored(matrix, form)
    group = form.group if isinstance(form, GroupedForm) else COLUMNS
    grouped, got = (each.astype(np.float64).reshape(ROWS, -1, group) for each in (matrix, np.asarray(values)))
    largest = np.abs(grouped).max(-1, keepdims=True)
    error = np.abs(got - grouped)
    match kind:
        case "int8":
            assert (error <= largest / 254 * 1.001).all()
        case "float8":  # three bits behind the first one; subnormals of a step of 2^-9
            assert (error <= np.abs(grouped) / 15.9 + largest / 448 * 2**-10).all()
        case _:  # within the levels half a step; what is cut off is at most what the least factor cuts
            assert (error <= largest * 0.3).all()
            plain = np.round(grouped / np.maximum(largest, 1e-300) * 7) * largest / 7
            squares = ((got - grouped) / np.maximum(largest, 1e-300)) ** 2
            worse = ((plain - grouped) / np.maximum(largest, 1e-300)) ** 2
            assert (squares.sum(-1) <= worse.sum(-1) * 1.02 + 1e-4).all(), "no worse than the plain way"
    assert np.array_equal(got[np.broadcast_to(largest == 0, got.shape)], np.zeros((largest == 0).sum() * group))


@pytest.mark.parametrize("kind", ["int8", "int4", "int4-64"])
@given(matrix=matrices())
def test_what_is_in_few_bits_stays_as_it_is(kind, matrix):
    form = form_of(kind, [COLUMNS])
    values = stored(matrix, form)[1]
    np.testing.assert_allclose(stored(values, form)[1], values, rtol=3e-7)


def test_four_bits_lie_two_to_a_byte_the_first_in_the_low_bits():
    numbers = jnp.asarray([[-8, 7, 0, -1]], jnp.int4)
    packed = pack(numbers)
    assert packed.dtype == jnp.uint8 and np.asarray(packed).tolist() == [[0x78, 0xF0]]
    assert np.array_equal(unpack(packed), numbers)
    weight = quantize(jnp.ones((3, 256)), form_of("int4", [256]))
    assert isinstance(weight, Grouped) and weight.matrix.shape == (3, 128) and weight.scale.shape == (3, 2)
    assert weight.columns == 256 and weight.numbers.dtype == jnp.int4


def test_a_search_finds_better_factors_than_the_largest_number_gives():
    """0.0138 is what normal numbers lose with -7 to 7 for the largest of 128."""
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(256, 128)), jnp.float32)
    values = stored(matrix, form_of("int4", [128]))[1]
    assert float(((values - matrix) ** 2).mean()) < 0.0105


@kinds
def test_what_is_no_number_does_not_become_one(kind):
    matrix = jnp.ones((2, COLUMNS)).at[0, 5].set(jnp.nan)
    values = np.asarray(stored(matrix, form_of(kind, [COLUMNS]))[1])
    assert np.isnan(values[0, 5]) and np.isfinite(values[1]).all()


def test_parts_beside_each_other_share_no_factor():
    assert form_of("int8", [2048]) == RowScaledForm("int8")
    assert form_of("int8", [2048, 8192, 10240]) == GroupedForm("int8", 2048, "float32")
    assert form_of("float8", [2048, 8192, 10240]) == GroupedForm("float8_e4m3fn", 2048, "float32")
    assert form_of("int4", [2048]) == GroupedForm("int4", 128) and form_of("int4-64", [2048]) == GroupedForm("int4", 64)
    assert form_of("int4", [96, 64]) == GroupedForm("int4", 32)
    assert form_of("int4", [15]) == RowScaledForm("int8"), "two of four bits are a byte"
    whole = jnp.concatenate([jnp.full((2, 64), 0.001), jnp.full((2, 64), 100.0)], axis=1)
    for kind in KINDS:
        np.testing.assert_allclose(stored(whole, form_of(kind, [64, 64, 128]))[1], whole, rtol=0.01)


def test_a_stack_is_quantized_like_its_matrices():
    stack = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2, 64)), jnp.float32)
    for kind in KINDS:
        form = form_of(kind, [64])
        whole = quantize(stack, form)
        assert isinstance(whole, RowScaled | Grouped)
        for i in range(3):
            one = quantize(stack[i], form)
            same = jax.tree.map(lambda all_of_them, alone, i=i: np.array_equal(all_of_them[i], alone), whole, one)
            assert all(jax.tree.leaves(same))
