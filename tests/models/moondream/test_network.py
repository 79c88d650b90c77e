"""The cache, number formats and tau attention of the text decoder."""

from __future__ import annotations

import dataclasses
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.config import STEP_PARTS
from jaxphoton.layers.cache import DenseCache, dense_attend
from jaxphoton.layers.fused import StepParts
from jaxphoton.layers.rope import rotary_frequencies, rotary_tables, rotate
from jaxphoton.models.moondream import network as text
from jaxphoton.models.moondream.config import MoeConfig, TextConfig, VisionConfig

VISION = VisionConfig(
    enc_dim=16, enc_patch_size=4, enc_n_layers=1, enc_ff_dim=16, enc_n_heads=2, proj_out_dim=32, proj_inner_dim=16,
    crop_size=20, max_crops=4, overlap_margin=1,
)  # fmt: skip


TEXT = TextConfig(dim=32, ff_dim=64, n_layers=2, vocab_size=97, max_context=64, n_heads=4, n_kv_heads=2, prefix_attn=26)
KEPT = (TEXT.n_layers, TEXT.n_kv_heads, TEXT.head_dim)


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(VISION, TEXT).text


@pytest.mark.parametrize("prefix", [0, 4])
def test_one_pass_equals_prefill_and_single_steps(params, prefix):
    length, split = 9, 6
    x = jax.random.normal(jax.random.key(1), (1, length, TEXT.dim), jnp.float32)
    prefix_length = jnp.full(1, prefix, jnp.int32)

    @jax.jit
    def run(x, start, cache):
        positions = start + jnp.arange(x.shape[1], dtype=jnp.int32)[None]
        return text.forward(params, TEXT, x, positions, dense_attend(positions, prefix_length, 16), cache)

    whole, _ = run(x, 0, DenseCache.zeros(*KEPT, 1, 16, jnp.float32))
    part, cache = run(x[:, :split], 0, DenseCache.zeros(*KEPT, 1, 16, jnp.float32))
    parts = [part]
    for t in range(split, length):
        part, cache = run(x[:, t : t + 1], t, cache)
        parts.append(part)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=1e-5)


def test_bfloat16_tells_late_positions_apart():
    """bfloat16 rounds 257 to 256: the angles must not pass through it."""
    x = jnp.ones((1, 2, TEXT.dim), jnp.bfloat16)
    tables = rotary_tables(jnp.asarray([[256, 257]], jnp.int32), rotary_frequencies(TEXT.rotary_dim, TEXT.rope_theta))
    assert all(table.dtype == jnp.float32 for table in tables)
    heads = x.reshape(1, 2, TEXT.n_heads, TEXT.head_dim)
    rotated = np.asarray(rotate(heads, *tables), np.float32)
    assert np.abs(rotated[0, 0] - rotated[0, 1]).max() > 0.1


def test_dtypes_of_a_bfloat16_model(random_params):
    params = random_params(VISION, TEXT, "bfloat16").text
    positions = jnp.arange(3, dtype=jnp.int32)[None]
    cache = DenseCache.zeros(*KEPT, 1, 8, jnp.bfloat16)
    attending = dense_attend(positions, jnp.zeros(1, jnp.int32), 8)
    hidden, cache = text.forward(params, TEXT, params.wte[positions], positions, attending, cache)
    assert hidden.dtype == cache.k.dtype == jnp.bfloat16
    assert text.logits(params, hidden).dtype == jnp.float32


TAU = dataclasses.replace(TEXT, n_kv_heads=4, tau_attn=True, rope_theta=1_500_000.0)


def test_tau_factors_follow_their_formula(random_params):
    params = random_params(VISION, TAU).text
    qkv = jax.random.normal(jax.random.key(3), (1, 2, TAU.qkv_dim), jnp.float32)
    positions = jnp.asarray([[0, 300]], jnp.int32)
    tau = np.asarray(text._tau(params.layers[1].tau_w, qkv, text._tau_positions(params.tau_alpha, positions)[1]))
    raw, alpha = np.asarray(qkv, np.float64)[0], np.asarray(params.tau_alpha[1], np.float64)
    fed = raw * (1 + np.vectorize(math.erf)(raw / 2**0.5)) / 2
    learned = np.tanh(fed @ np.asarray(params.layers[1].tau_w.matrix, np.float64).T).reshape(2, 2, TAU.n_heads)
    place = 1 / (1 + np.exp(-alpha * np.log([[1.0], [301.0]]))) + 0.5
    np.testing.assert_allclose(tau[0], learned + place[:, None], atol=1e-5)


def test_tau_scales_q_and_v_and_leaves_k(random_params):
    params = random_params(VISION, TAU).text
    x = jax.random.normal(jax.random.key(1), (1, 3, TAU.dim), jnp.float32)
    positions = jnp.arange(3, dtype=jnp.int32)[None]

    def first_layer(config, params):
        seen = []

        def record(layer, q, k, v, cache):
            seen.append((q, k, v))
            return jnp.zeros_like(q), cache

        trace = text.Trace()
        text.forward(params, config, x, positions, record, None, trace=trace)
        return seen[0], trace

    (q, k, v), trace = first_layer(TAU, params)
    (plain_q, plain_k, plain_v), plain = first_layer(
        dataclasses.replace(TAU, tau_attn=False), dataclasses.replace(params, tau_alpha=None)
    )
    assert not plain.tau and len(trace.tau) == TAU.n_layers
    factors = trace.tau[0]
    np.testing.assert_allclose(q, plain_q * factors[:, :, 0, :, None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(v, plain_v * factors[:, :, 1, :, None], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(k, plain_k)


def test_the_tau_term_tells_late_positions_apart_in_bfloat16(random_params):
    params = random_params(VISION, TAU, "bfloat16").text
    terms = text._tau_positions(params.tau_alpha, jnp.asarray([[2000, 2001]], jnp.int32))
    assert terms.dtype == jnp.float32
    assert (terms[:, 0, 0] != terms[:, 0, 1]).all()


EXPERTS = dataclasses.replace(
    TAU, n_layers=4, moe=MoeConfig(num_experts=4, start_layer=2, experts_per_token=2, expert_inner_dim=16)
)


def joined(config, attending):
    """What a kernel for the attention of a step does: all from the whole input product."""

    def attend(layer, u, cos, sin, factors, cache):
        q, k, v = text._split_heads(config, u[:, None, : config.qkv_dim])
        if factors is not None:
            parts, terms = factors
            tau = text._factors(jnp.sum(parts, axis=0)[:, None], terms[layer][:, None])
            q, v = text._scaled(q, tau[:, :, 0]), text._scaled(v, tau[:, :, 1])
        q, k = (rotate(heads, cos[:, None, None], sin[:, None, None]) for heads in (q, k))
        out, cache = attending(layer, q, k, v, cache)
        return out.reshape(len(u), -1), cache

    return attend


@pytest.mark.parametrize("kernels", [("output",), ("norm", "attention"), STEP_PARTS], ids="+".join)
@pytest.mark.parametrize("config", [TEXT, TAU, EXPERTS], ids=["plain", "tau", "experts"])
def test_a_step_in_parts_is_the_plain_one(random_params, config, kernels):
    params, rows, length = random_params(VISION, config).text, 3, 8
    positions = jnp.asarray([[0], [5], [7]], jnp.int32)
    attending = dense_attend(positions, jnp.asarray([0, 2, 0], jnp.int32), length)
    shape = (config.n_layers, rows, length, config.n_kv_heads, config.head_dim)
    shapes = (shape, shape, (rows, 1, config.dim))
    k, v, x = (jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate(shapes))
    attend = joined(config, attending) if "attention" in kernels else None
    done = {}

    @partial(jax.jit, static_argnames="step")
    def run(params, x, cache, step):
        trace = text.Trace()
        hidden, cache = text.forward(params, config, x, positions, attending, cache, trace=trace, step=step)
        return text.logits(params, hidden[:, 0]), hidden, cache, trace.hidden, trace.tau

    for name, step in (("plain", None), ("parts", StepParts(kernels, "interpret", attend=attend))):
        done[name] = run(params, x, DenseCache(k, v), step)
    for a, b in zip(*map(jax.tree.leaves, done.values()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step", [None, StepParts(STEP_PARTS, "reference")], ids=["plain", "step"])
@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        # In parts a step's last dense layer ends otherwise.
        (dataclasses.replace(TEXT, n_layers=6), {None: [6], "step": [5, 1]}),
        (dataclasses.replace(EXPERTS, n_layers=6), {None: [2, 4], "step": [1, 1, 4]}),
    ],
    ids=["dense", "experts"],
)
def test_a_program_has_each_kind_of_layer_once(random_params, config, kinds, step):
    params, rows = random_params(VISION, config).text, 2
    positions = jnp.zeros((rows, 1), jnp.int32)
    attending = dense_attend(positions, jnp.zeros(rows, jnp.int32), 8)
    cache = DenseCache.zeros(config.n_layers, config.n_kv_heads, config.head_dim, rows, 8, jnp.float32)
    run = jax.jit(lambda params, x: text.forward(params, config, x, positions, attending, cache, step=step))
    lowered = run.lower(params, jnp.zeros((rows, 1, config.dim))).as_text()
    calls = re.findall(r"call @(block\w*)", lowered)
    expected = kinds["step" if step else None]
    assert sorted(map(calls.count, set(calls))) == sorted(expected)
    assert len(re.findall(r"func private @block", lowered)) == len(expected)
