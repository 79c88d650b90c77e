"""The parts of a dense layer in a decode step: whoever computes which of them, the layer is the same."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.layers.fused import StepParts
from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.placed import placed
from jaxphoton.layers.weight import Dense
from kernels_pallas.dispatch import KernelUnavailable, Target
from tests.layers.forms import in_float8, in_int4_symmetric, in_int8

ROWS, WIDTH, QKV, HIDDEN, ATTENDED, LAYERS = 3, 48, 96, 80, 32, 2
PARTS = ("norm", "input", "output")
SOME = [subset for count in range(4) for subset in itertools.combinations(PARTS, count)]


def parameters(dtype: str) -> dict:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape, np.float32), dtype)

    return {
        "x": normal(ROWS, WIDTH),
        "ln": normal(LAYERS, 2, WIDTH),
        "in_w": [Dense(normal(QKV + HIDDEN, WIDTH) / 8) for _ in range(LAYERS)],
        "in_b": normal(LAYERS, QKV + HIDDEN),
        "out_w": [Dense(normal(WIDTH, ATTENDED + HIDDEN) / 8) for _ in range(LAYERS)],
        "out_b": normal(LAYERS, 2, WIDTH),
    }


def layers(step: StepParts, p: dict) -> jax.Array:
    """Two layers whose attention is the first columns of u."""
    x, parts = p["x"], jnp.zeros((1, ROWS, WIDTH), jnp.float32)
    no_bias = jnp.zeros_like(p["out_b"])
    x, h = step.norm(x, parts, no_bias, p["ln"], 0, 0)
    for layer in range(LAYERS):
        u = step.input(h, p["in_w"][layer], p["in_b"], layer, QKV)
        parts = step.output(u[:, :ATTENDED], u, p["out_w"][layer])
        if layer + 1 < LAYERS:
            x, h = step.norm(x, parts, p["out_b"], p["ln"], layer, layer + 1)
    return step.end(x, parts, p["out_b"], LAYERS - 1)


def definition(p: dict) -> np.ndarray:
    """In float64, from the words."""
    ln, in_b, out_b, x = (np.asarray(p[name], np.float64) for name in ("ln", "in_b", "out_b", "x"))
    for layer in range(LAYERS):
        h = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * ln[layer, 0] + ln[layer, 1]
        u = h @ np.asarray(p["in_w"][layer].matrix, np.float64).T + in_b[layer]
        z = u[:, QKV:]
        gelu = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
        out = np.hstack([u[:, :ATTENDED], gelu]) @ np.asarray(p["out_w"][layer].matrix, np.float64).T
        x = x + out + out_b[layer].sum(axis=0)
    return x


@pytest.mark.parametrize("kernels", SOME, ids="+".join)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 2e-2)])
def test_layers_are_the_same_whoever_computes_which_part(kernels, dtype, tolerance):
    p = parameters(dtype)
    out = jax.jit(lambda p: layers(StepParts(kernels, "interpret"), p))(p)
    assert out.dtype == dtype
    expected = definition(p)
    assert np.max(np.abs(np.asarray(out, np.float64) - expected)) <= tolerance * np.max(np.abs(expected))


def test_named_parts_are_computed_by_kernels():
    p = parameters("float32")
    for kernels in SOME:
        text = str(jax.make_jaxpr(lambda p, kernels=kernels: layers(StepParts(kernels, "interpret"), p))(p))
        found = {name for name in ("residual_norm", "input_product", "output_product") if name in text}
        named = {"norm": "residual_norm", "input": "input_product", "output": "output_product"}
        assert found == {named[part] for part in kernels}


def in_form(p: dict, form) -> dict:
    """The same layers with matrices of few bits."""
    return p | {name: [form(weight.matrix) for weight in p[name]] for name in ("in_w", "out_w")}


@pytest.mark.parametrize("form", [in_int8, in_float8])
def test_kernels_take_matrices_with_factors_of_rows(form):
    p = in_form(parameters("float32"), form)
    plain = p | {name: [weight.dense(jnp.float32) for weight in p[name]] for name in ("in_w", "out_w")}
    out = jax.jit(lambda p: layers(StepParts(PARTS, "interpret"), p))(p)
    expected = definition(plain)
    assert np.max(np.abs(np.asarray(out, np.float64) - expected)) <= 2e-6 * np.max(np.abs(expected))


def test_matrices_in_groups_have_a_kernel_of_their_own():
    def in_groups(matrix: jax.Array) -> Grouped:
        return Grouped(matrix.astype(jnp.int8), jnp.ones((matrix.shape[0], matrix.shape[1] // 16), jnp.bfloat16))

    p = in_form(parameters("bfloat16"), in_groups)
    step = StepParts(("input", "output"), "interpret")
    text = str(jax.make_jaxpr(lambda p: layers(step, placed(p, "interpret")))(p))
    assert "quant_matmul" in text and "input_product" not in text and "output_product" not in text


def test_matrices_of_other_forms_are_left_to_xla_aloud(caplog):
    p, target = in_form(parameters("float32"), in_int4_symmetric), Target("cuda", 90)
    expected = layers(StepParts(()), p)
    out = layers(StepParts(("input", "output"), "auto", target), p)
    np.testing.assert_array_equal(out, expected)
    assert all(f"{part}_product: the plain form is used" in caplog.text for part in ("input", "output"))
    with pytest.raises(KernelUnavailable, match="no Grouped matrices"):
        layers(StepParts(("input",), "triton", target), p)
