"""Matrices in groups multiply by a kernel in programs for GPUs, wherever in a tree they are; others do not change."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.layers.adapters import AdaptedRows, Pairs
from jaxphoton.layers.placed import GroupedByKernel, placed
from jaxphoton.layers.weight import RowScaled, matmul
from jaxphoton.models.adapters import NO_SLOT
from kernels_pallas.dispatch import Target
from tests.kernels.comparing import H200, cuda_device, error
from tests.layers.forms import dense_of, in_int4, in_int4_symmetric, in_int8

X = np.random.default_rng(0).standard_normal((2, 3, 64)).astype(np.float32)
MATRIX = jnp.asarray(np.random.default_rng(1).standard_normal((32, 64)), jnp.float32)


@pytest.mark.parametrize("form", [in_int4, in_int4_symmetric])
@pytest.mark.parametrize("out", [None, jnp.bfloat16])
def test_the_product_is_that_of_the_values(form, out):
    weight = form(MATRIX, 32)
    x = jnp.asarray(X)
    expected = matmul(x, dense_of(weight.dense(jnp.float32)), out)
    actual = jax.jit(lambda x, weight: matmul(x, placed(weight, "interpret"), out))(x, weight)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert error(actual, expected) <= (1e-2 if out else 2e-6)


def test_beneath_adapters():
    x, weight = jnp.asarray(X), in_int4(MATRIX, 32)
    pairs = Pairs(jnp.ones((1, 4, 64), jnp.float32), jnp.ones((32, 1, 4), jnp.float32))
    adapted = AdaptedRows(weight, (pairs,), jnp.asarray([0, NO_SLOT], jnp.int32))
    inside = placed({"w": adapted}, "interpret")["w"]
    assert isinstance(inside.base, GroupedByKernel)
    assert error(matmul(x, inside), matmul(x, adapted)) <= 2e-6


def test_experts_are_left_alone():
    weight = in_int4(jnp.stack([MATRIX, -MATRIX]), 32)
    (found,) = placed([weight], "interpret")
    assert found is weight


def test_another_product_is_that_of_the_values():
    weight = in_int4(MATRIX, 32)
    result = placed(weight, "interpret").einsum("td,id->it", jnp.asarray(X[0]))
    np.testing.assert_array_equal(result, weight.einsum("td,id->it", jnp.asarray(X[0])))


@pytest.mark.parametrize(
    ("backend", "target", "kernel"),
    [
        ("auto", H200, True),
        (None, H200, True),
        ("triton", H200, True),
        ("reference", H200, False),
        ("auto", Target("cpu"), False),
        ("auto", None, False),
    ],
)
def test_where_a_kernel_multiplies(backend, target, kernel):
    weight, plain = in_int4(MATRIX, 32), in_int8(MATRIX)
    found = placed({"grouped": weight, "rows": plain}, backend, target)
    assert isinstance(found["rows"], RowScaled)
    assert isinstance(found["grouped"], GroupedByKernel) == kernel
    assert all(a is b for a, b in zip(jax.tree.leaves(found), jax.tree.leaves([weight, plain]), strict=True))


@pytest.mark.parametrize("form", [in_int8, in_int4])
def test_on_a_cpu_no_large_matrix_is_widened_at_once(form):
    matrix = jnp.asarray(np.random.default_rng(2).standard_normal((2048, 1024)), jnp.float32)
    weight, x = form(matrix) if form is in_int8 else form(matrix, 32), jnp.ones((2, 3, 1024), jnp.float32)
    cpu = Target("cpu")
    assert placed(in_int8(MATRIX), "auto", cpu).matrix.shape == MATRIX.shape  # a small one stays as it is
    products = {
        name: jax.jit(lambda x, weight, where=where: matmul(x, placed(weight, *where)))
        for name, where in {"blocks": ("auto", cpu), "plain": ("plain", cpu)}.items()
    }
    compiled = {name: product.lower(x, weight).compile() for name, product in products.items()}
    assert error(compiled["blocks"](x, weight), compiled["plain"](x, weight)) <= 2e-6
    bytes_used = {name: program.memory_analysis().temp_size_in_bytes for name, program in compiled.items()}
    assert bytes_used["blocks"] < matrix.nbytes / 2 <= bytes_used["plain"]
    np.testing.assert_array_equal(placed(weight, "auto", cpu).dense("float32").matrix, weight.dense("float32").matrix)


def test_it_is_the_kernel_that_a_program_for_a_gpu_calls():
    def program(x, weight):
        return matmul(x, placed(weight, "auto", H200))

    with cuda_device():
        lowered = jax.jit(program).trace(jnp.asarray(X), in_int4(MATRIX, 32)).lower(lowering_platforms=("cuda",))
    assert "quant_matmul" in lowered.as_text()
