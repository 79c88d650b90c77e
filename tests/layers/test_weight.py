"""Weights: every form applies itself like the array it stands for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.layers.weight import Dense, RowScaled, Weight, linear, matmul
from tests.layers.forms import HStack, in_float8, in_int4, in_int4_symmetric, in_int8

ROWS, COLUMNS = 6, 8


def drawn(*shape: int, seed: int = 0, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0, 1, shape), dtype)


def exact(weight: Weight) -> np.ndarray:
    return np.asarray(weight.dense(jnp.float32).matrix, np.float64)


@pytest.mark.parametrize("form", [Dense, in_int8, in_float8, in_int4, in_int4_symmetric])
def test_a_weight_is_the_matrix_that_it_stands_for(form):
    weight, x, bias = form(drawn(ROWS, COLUMNS)), drawn(2, 3, COLUMNS, seed=1), drawn(ROWS, seed=2)
    wanted = np.asarray(x, np.float64) @ exact(weight).T
    np.testing.assert_allclose(matmul(x, weight), wanted, atol=1e-5)
    np.testing.assert_allclose(linear(x, weight, bias), wanted + np.asarray(bias), atol=1e-5)


@pytest.mark.parametrize("form", [Dense, in_int8, in_float8, in_int4, in_int4_symmetric])
def test_a_stack_of_matrices_is_applied_to_all_or_each_to_its_own(form):
    weight, x, each = form(drawn(5, ROWS, COLUMNS)), drawn(3, COLUMNS, seed=1), drawn(5, 3, COLUMNS, seed=2)
    stack = exact(weight)
    wanted = np.einsum("td,eid->eti", np.asarray(x, np.float64), stack)
    np.testing.assert_allclose(weight.einsum("td,eid->eti", x), wanted, atol=1e-5)
    wanted = np.einsum("etd,eid->eti", np.asarray(each, np.float64), stack)
    np.testing.assert_allclose(weight.einsum("etd,eid->eti", each), wanted, atol=1e-5)


@pytest.mark.parametrize("form", [Dense, in_int8, in_float8, in_int4, in_int4_symmetric])
def test_matrices_beside_each_other_are_one(form):
    sides = (form(drawn(ROWS, COLUMNS)), Dense(drawn(ROWS, 3, seed=1)), form(drawn(ROWS, 4, seed=2)))
    weight, x = HStack(sides), drawn(2, 3, COLUMNS + 7, seed=3)
    assert weight.columns == COLUMNS + 7
    matrix = np.concatenate([exact(side) for side in sides], axis=-1)
    np.testing.assert_array_equal(exact(weight), matrix)
    np.testing.assert_allclose(matmul(x, weight), np.asarray(x, np.float64) @ matrix.T, atol=1e-5)


def test_sums_of_matrices_beside_each_other_are_rounded_once():
    """256 + 1 is 256 in bfloat16 and 257 - 255 is 2: sums of the sides meet before they are rounded."""
    sides = [Dense(jnp.asarray([row], jnp.bfloat16)) for row in ([256, 1], [-255])]
    product = matmul(jnp.ones((1, 3), jnp.bfloat16), HStack(tuple(sides)))
    assert product.dtype == jnp.bfloat16 and float(product[0, 0]) == 2


@pytest.mark.parametrize("form", [Dense, in_int8, in_float8, in_int4, in_int4_symmetric])
def test_the_result_has_the_dtype_that_was_asked_for(form):
    weight, x = form(drawn(ROWS, COLUMNS, dtype=jnp.bfloat16)), drawn(2, COLUMNS, seed=1, dtype=jnp.bfloat16)
    assert matmul(x, weight).dtype == jnp.bfloat16
    assert matmul(x, weight, out=jnp.float32).dtype == jnp.float32
    assert weight.einsum("td,fd->tf", x, out=jnp.float32, product=jnp.bfloat16).dtype == jnp.float32
    assert weight.dense(jnp.float16).matrix.dtype == jnp.float16


def test_a_row_scaled_product_is_rounded_once():
    """The factors meet the sums in float32: a sum that bfloat16 cannot hold is not rounded before its factor."""
    weight = RowScaled(jnp.full((1, 257), 1, jnp.int8), jnp.full(1, 1 / 257, jnp.float32))
    assert float(matmul(jnp.ones((1, 257), jnp.bfloat16), weight)[0, 0]) == 1
