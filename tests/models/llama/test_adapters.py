"""Adapters of the decoder, chosen row by row, against W x + b (a x) in float64, written down in NumPy."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.layers.adapters import put
from jaxphoton.layers.cache import DenseCache, dense_attend
from jaxphoton.models.adapters import NO_SLOT, Adapter, LowRank
from jaxphoton.models.llama import network as text
from jaxphoton.models.naming import WeightsError
from jaxphoton.models.protocol import Kernels
from tests.models.joycaption.drawn import SMALL, bound_to, drawn
from tests.models.llama.drawn import adapter_of
from tests.models.smolvlm import drawn as smolvlm

FAMILY = bound_to(SMALL)
NETWORK, CONFIG, SHAPES = FAMILY.network, SMALL.text, FAMILY.tensors.adapters.shapes
LENGTH, SLOTS, RANK = 6, 3, 4
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def by_hand(params, x: np.ndarray, adapter: Adapter | None) -> np.ndarray:
    """Input embeddings [T, D] -> logits [T, V], one matrix of a checkpoint after the other."""
    c, group = CONFIG, CONFIG.num_attention_heads // CONFIG.num_key_value_heads
    q, kv, half = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim, c.head_dim // 2
    angles = np.arange(len(x))[:, None, None] * text.frequencies(c)[None, None]
    future = np.triu(np.full((len(x), len(x)), -np.inf), 1)

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + c.rms_norm_eps) * np.asarray(scale, np.float64)

    def turned(x):
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1)

    def times(x, matrix, module):
        result, pair = x @ np.asarray(matrix, np.float64).T, adapter and adapter.pairs.get(module)
        return result if pair is None else result + (x @ pair.a.astype(np.float64).T) @ pair.b.astype(np.float64).T

    for i, layer in enumerate(params.layers):
        front, h = f"language_model.layers.{i}", norm(x, params.norm[i, 0])
        rows = np.split(np.asarray(layer.qkv_w.matrix), [q, q + kv])
        parts = (times(h, m, f"{front}.self_attn.{n}_proj") for n, m in zip("qkv", rows, strict=True))
        queries, keys, values = (part.reshape(len(x), -1, c.head_dim) for part in parts)
        queries, keys, out = turned(queries), turned(keys), []
        for head in range(c.num_attention_heads):
            scores = queries[:, head] @ keys[:, head // group].T / np.sqrt(c.head_dim) + future
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            out.append(weights / weights.sum(axis=-1, keepdims=True) @ values[:, head // group])
        x = x + times(np.concatenate(out, axis=-1), layer.out_w.matrix, f"{front}.self_attn.o_proj")
        h, (gate, up) = norm(x, params.norm[i, 1]), np.split(np.asarray(layer.up_w.matrix), 2)
        gate, up = times(h, gate, f"{front}.mlp.gate_proj"), times(h, up, f"{front}.mlp.up_proj")
        x = x + times(gate / (1 + np.exp(-gate)) * up, layer.down_w.matrix, f"{front}.mlp.down_proj")
    return norm(x, params.post_norm) @ np.asarray(params.lm_head_w.matrix, np.float64).T


@pytest.fixture(scope="module")
def params():
    return drawn(SMALL)


@jax.jit
def answered(params, pool, slots, x):
    params = NETWORK.with_adapters(params, pool, slots)
    positions = jnp.broadcast_to(jnp.arange(LENGTH, dtype=jnp.int32)[None], x.shape[:2])
    cache = DenseCache.zeros(2, CONFIG.num_key_value_heads, CONFIG.head_dim, len(x), LENGTH, jnp.float32)
    attend = dense_attend(positions, jnp.zeros(len(x), jnp.int32), LENGTH)
    return NETWORK.logits(params, NETWORK.forward(params, x, positions, attend, cache, Kernels("plain"))[0])


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (3, LENGTH, CONFIG.hidden_size))


def filled(*held: Adapter):
    pool = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), NETWORK.adapters("float32", SLOTS, RANK))
    for slot, adapter in enumerate(held):
        pool = put(pool, NETWORK.adapter_slot(adapter, "float32", RANK), jnp.int32(slot))
    return pool


def run(params, pool, slots, x):
    return answered(NETWORK.decoder(params), pool, jnp.asarray(slots, jnp.int32), x)


def test_rows_of_a_batch_have_their_own(params, x):
    one, other = adapter_of(SHAPES, 1, RANK), adapter_of(SHAPES, 2, 3)
    done = run(params, filled(one, other), [1, NO_SLOT, 0], x)
    for row, adapter in enumerate((other, None, one)):
        np.testing.assert_allclose(done[row], by_hand(params.text, np.asarray(x[row]), adapter), atol=1e-4)
    assert np.max(np.abs(done - run(params, filled(one, other), [NO_SLOT] * 3, x))) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_each_matrix_has_its_own_pair(params, x, kind):
    adapter = adapter_of(SHAPES, 3, 2, kept=f"layers.1.{'mlp' if kind[0] in 'gud' else 'self_attn'}.{kind}")
    assert len(adapter.pairs) == 1
    done = run(params, filled(adapter), [0, NO_SLOT, 0], x)
    for row, own in enumerate((adapter, None, adapter)):
        np.testing.assert_allclose(done[row], by_hand(params.text, np.asarray(x[row]), own), atol=1e-4)
    assert np.max(np.abs(by_hand(params.text, np.asarray(x[0]), None) - done[0])) > 1e-3


def test_what_another_row_has_changes_nothing_not_even_by_an_overflow(params, x):
    huge = adapter_of(SHAPES, 4, 2)
    huge = Adapter("huge", b"", {n: LowRank(p.a * 1e30, p.b * 1e30) for n, p in huge.pairs.items()}, "")
    one = adapter_of(SHAPES, 1, RANK)
    alone, beside = (run(params, pool, [0, s, s], x) for pool, s in ((filled(one), NO_SLOT), (filled(one, huge), 1)))
    assert not np.isfinite(beside[1]).all()
    np.testing.assert_array_equal(alone[0], beside[0])


def test_a_slot_that_is_put_again_has_nothing_of_what_it_held():
    first, second = adapter_of(SHAPES, 1, RANK), adapter_of(SHAPES, 2, 1, "k_proj")
    again = put(filled(first), NETWORK.adapter_slot(second, "float32", RANK), jnp.int32(0))
    jax.tree.map(partial(np.testing.assert_array_equal), again, filled(second))


Q = "language_model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("name", "shapes", "fault"),
    [
        (Q.replace("0", "2"), ((2, 16), (32, 2)), "no such matrix"),
        (Q.replace("q_", "qkv_"), ((2, 16), (32, 2)), "no such matrix"),
        ("vision_tower.encoder.layers.0.self_attn.q_proj", ((2, 24), (24, 2)), "no such matrix"),
        (Q, ((2, 17), (32, 2)), r"\[2, 17\] and \[32, 2\], not \[rank, 16\] and \[32, rank\]"),
        (Q.replace("q_", "k_"), ((2, 16), (32, 2)), r"not \[rank, 16\] and \[8, rank\]"),
        (Q, ((5, 16), (32, 5)), "rank 5; there is room for 4"),
    ],
)
def test_pairs_that_do_not_fit_are_named(name, shapes, fault):
    wrong = LowRank(*(np.zeros(shape, np.float32) for shape in shapes))
    adapter = Adapter("mine", b"", {**adapter_of(SHAPES, 1, 2).pairs, name: wrong}, "")
    with pytest.raises(WeightsError, match=f"the adapter mine does not fit: {name}: .*{fault}"):
        NETWORK.adapter_slot(adapter, "float32", RANK)


def test_smolvlm_has_them_too():
    family = smolvlm.bound_to(smolvlm.SMALL)
    names, network = family.tensors.adapters, family.network
    paths = ("model.text_model.layers.0.mlp.up_proj", "model.vision_model.encoder.layers.1.mlp.fc1",
             "model.connector.modality_projection.proj", "lm_head")  # fmt: skip
    modules = [names.module(path) for path in paths]
    assert [module in names.shapes for module in modules] == [True, False, False, False]
    assert [module in names.merged for module in modules] == [False, True, True, False]
    adapter, rest = adapter_of(names.shapes, 1, RANK), adapter_of(names.shapes, 1, RANK, "up_proj")
    held, part = (network.adapter_slot(each, "float32", RANK) for each in (adapter, rest))
    assert network.adapter_rank(adapter) == RANK and all(np.all(np.any(leaf, -1)) for leaf in held.up.a)
    half = part.up.b.shape[1] // 2
    assert not np.any(part.up.b[:, :half]) and not np.any(part.down.b)
    pair = rest.pairs["text_model.layers.1.mlp.up_proj"]
    np.testing.assert_array_equal(part.up.b[1, half:, 0, RANK:], pair.b)


def test_numbers_that_only_float32_holds_are_refused_in_bfloat16():
    pair = adapter_of(SHAPES, 1, 2).pairs[Q]
    adapter = Adapter("mine", b"", {Q: LowRank(pair.a, np.full_like(pair.b, np.finfo(np.float32).max))}, "")
    NETWORK.adapter_slot(adapter, "float32", RANK)
    with pytest.raises(WeightsError, match=f"{Q}: numbers too large for bfloat16"):
        NETWORK.adapter_slot(adapter, "bfloat16", RANK)
