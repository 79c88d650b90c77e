"""The text decoder with adapters chosen row by row, against parameters with one adapter merged into their matrices."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.layers import moe
from jaxphoton.layers.adapters import put
from jaxphoton.layers.cache import DenseCache, dense_attend
from jaxphoton.layers.fused import StepParts
from jaxphoton.layers.weight import Dense
from jaxphoton.models.adapters import NO_SLOT, Adapter, LowRank
from jaxphoton.models.moondream import adapters
from jaxphoton.models.moondream import network as text
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.device import MoondreamNetwork
from jaxphoton.models.naming import WeightsError
from tests.models.moondream.conftest import REGION
from tests.models.moondream.drawn import drawn
from tests.models.moondream.test_network import EXPERTS, TEXT, VISION

LENGTH, SLOTS, RANK = 5, 3, 4


def merged(params, config, adapter: Adapter):
    """Parameters with an adapter added to their matrices."""
    layers = []
    for i, layer in enumerate(params.layers):
        delta = {name: pair.b @ pair.a for name, pair in adapter.pairs.items() if name.startswith(f"text.blocks.{i}.")}
        into, out = np.array(layer.in_w.matrix), np.array(layer.out_w.matrix)
        attended = config.n_heads * config.head_dim
        for name, matrix, part in (
            ("attn.qkv", into, np.s_[: config.qkv_dim]),
            ("mlp.fc1", into, np.s_[config.qkv_dim :]),
            ("attn.proj", out, np.s_[:, :attended]),
            ("mlp.fc2", out, np.s_[:, attended:]),
        ):
            added = delta.get(f"text.blocks.{i}.{name}")
            if added is not None and added.ndim == 2:
                matrix[part] += added
        experts = layer.experts
        if experts is not None:
            changed = {
                f"{name}_w": Dense(getattr(experts, f"{name}_w").matrix + delta.get(f"text.blocks.{i}.mlp.{name}", 0))
                for name in ("fc1", "fc2")
            }
            experts = experts.replace(**changed)
        in_w, out_w = Dense(jnp.asarray(into)), Dense(jnp.asarray(out))
        layers.append(layer.replace(in_w=in_w, out_w=out_w, experts=experts))
    return params.replace(layers=tuple(layers))


def filled(network, *held: Adapter, slots: int = SLOTS):
    pool = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), network.adapters("float32", slots, RANK))
    for slot, adapter in enumerate(held):
        pool = put(pool, network.adapter_slot(adapter, "float32", RANK), jnp.int32(slot))
    return pool


@partial(jax.jit, static_argnames=("config", "step", "experts"))
def states(params, config, x, positions=None, step=None, experts=moe.PLAIN):
    """What every layer leaves, [L + 1, B, T, D]."""
    rows, tokens = x.shape[:2]
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32)[None], (rows, tokens))
    attending = dense_attend(positions, jnp.zeros(rows, jnp.int32), LENGTH)
    cache = DenseCache.zeros(config.n_layers, config.n_kv_heads, config.head_dim, rows, LENGTH, jnp.float32)
    trace = text.Trace()
    text.forward(params, config, x, positions, attending, cache, experts, trace, step)
    return jnp.stack(trace.hidden)


def hidden(*args):
    return states(*args)[-1]


def model(random_params, config):
    params = random_params(VISION, config)
    return params, MoondreamNetwork(ModelConfig(vision=VISION, text=config, region=REGION))


@pytest.mark.parametrize("config", [TEXT, EXPERTS], ids=["dense", "experts"])
def test_rows_of_a_batch_have_what_their_adapter_merged_gives(random_params, config):
    params, network = model(random_params, config)
    one, other = drawn(config, 1, RANK, "n.qkv"), drawn(config, 2, 3)
    other = dataclasses.replace(other, pairs={n: p for n, p in other.pairs.items() if "@" not in n})
    pool = filled(network, one, other)
    x = jax.random.normal(jax.random.key(0), (4, LENGTH, config.dim))
    adapted = network.with_adapters(params, pool, jnp.asarray([1, NO_SLOT, 0, 2], jnp.int32))
    done = hidden(adapted.text, config, x)
    for row, adapter in enumerate((other, None, one, None)):
        expected = params.text if adapter is None else merged(params.text, config, adapter)
        np.testing.assert_allclose(done[row], hidden(expected, config, x[row : row + 1])[0], rtol=1e-4, atol=1e-4)
    assert np.abs(done[0] - done[1]).max() > 0.1


def test_the_pair_of_a_layers_input_is_added_to_its_output(random_params):
    params, network = model(random_params, TEXT)
    adapter = drawn(TEXT, 3, 2, "blocks.1.attn.proj@input")
    (pair,) = adapter.pairs.values()
    x = jax.random.normal(jax.random.key(0), (2, LENGTH, TEXT.dim))
    adapted = network.with_adapters(params, filled(network, adapter), jnp.asarray([0, NO_SLOT], jnp.int32)).text
    done, plain = hidden(adapted, TEXT, x), states(params.text, TEXT, x)
    fed, plain = text.layer_norm(plain[1, 0], params.text.ln[1]), plain[-1]
    np.testing.assert_allclose(done[1], plain[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(done[0] - plain[0], fed @ pair.a.T @ pair.b.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [TEXT, EXPERTS], ids=["dense", "experts"])
def test_a_step_in_parts_has_adapters_too(random_params, config):
    params, network = model(random_params, config)
    pool = filled(network, drawn(config, 1, RANK), drawn(config, 2, RANK))
    adapted = network.with_adapters(params, pool, jnp.asarray([1, 0, NO_SLOT], jnp.int32)).text
    x, positions = jax.random.normal(jax.random.key(0), (3, 1, config.dim)), jnp.asarray([[0], [2], [4]], jnp.int32)
    plain = hidden(adapted, config, x, positions)
    parts = hidden(adapted, config, x, positions, StepParts(("norm",), "interpret"))
    np.testing.assert_allclose(parts, plain, rtol=1e-4, atol=1e-4)


def test_what_another_row_has_changes_nothing_not_even_by_an_overflow(random_params):
    params, network = model(random_params, TEXT)
    huge = drawn(TEXT, 4, 2)
    huge = dataclasses.replace(huge, pairs={n: LowRank(p.a * 1e30, p.b * 1e30) for n, p in huge.pairs.items()})
    x = jax.random.normal(jax.random.key(0), (2, LENGTH, TEXT.dim))
    pools = filled(network, drawn(TEXT, 1, 2)), filled(network, drawn(TEXT, 1, 2), huge)
    alone, beside = (
        hidden(network.with_adapters(params, pool, jnp.asarray([0, slot], jnp.int32)).text, TEXT, x)
        for pool, slot in zip(pools, (NO_SLOT, 1), strict=True)
    )
    assert not np.isfinite(beside[1]).all()
    np.testing.assert_array_equal(alone[0], beside[0])


def test_a_slot_that_is_put_again_has_nothing_of_what_it_held(random_params):
    params, network = model(random_params, TEXT)
    first, second = drawn(TEXT, 1, RANK), drawn(TEXT, 2, 1, "fc1")
    again, fresh = filled(network, first), filled(network, second)
    again = put(again, network.adapter_slot(second, "float32", RANK), jnp.int32(0))
    for a, b in zip(*map(jax.tree.leaves, (again, fresh)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "shapes", "fault"),
    [
        ("text.blocks.2.attn.qkv", ((2, 32), (64, 2)), "no such matrix"),
        ("text.blocks.0.mlp.router", ((2, 32), (64, 2)), "no such matrix"),
        ("vision.blocks.0.attn.qkv", ((2, 32), (64, 2)), "no such matrix"),
        ("text.blocks.0.mlp.fc1", ((2, 33), (64, 2)), r"\[2, 33\] and \[64, 2\], not \[rank, 32\] and \[64, rank\]"),
        ("text.blocks.0.mlp.fc1", ((2, 32), (64, 3)), r"\[64, 3\]"),
        ("text.blocks.0.mlp.fc1", ((5, 32), (64, 5)), "rank 5; there is room for 4"),
    ],
)
def test_pairs_that_do_not_fit_are_named(random_params, name, shapes, fault):
    _, network = model(random_params, TEXT)
    wrong = LowRank(*(np.zeros(shape, np.float32) for shape in shapes))
    adapter = Adapter("mine", b"", {**drawn(TEXT, 1, 2).pairs, name: wrong}, "")
    with pytest.raises(WeightsError, match=f"the adapter mine does not fit: {name}: .*{fault}"):
        network.adapter_slot(adapter, "float32", RANK)


@pytest.mark.parametrize(
    ("name", "shapes", "fault"),
    [
        ("text.blocks.2.mlp.fc1", ((4, 2, 32), (4, 32, 3)), r"not \[4, rank, 32\] and \[4, 32, rank\]"),
        ("text.blocks.2.mlp.fc2", ((2, 16), (32, 2)), r"not \[4, rank, 16\] and \[4, 32, rank\]"),
        ("text.blocks.2.mlp.fc1", ((4, 3, 32), (4, 32, 3)), "rank 3 of an expert; there is room for 2"),
        ("text.blocks.4.mlp.fc1", ((4, 2, 32), (4, 32, 2)), "no such matrix"),
        ("text.blocks.0.attn.proj@input", ((2, 32), (32, 2)), "no such matrix"),
    ],
)
def test_pairs_of_experts_that_do_not_fit_are_named(random_params, name, shapes, fault):
    _, network = model(random_params, EXPERTS)
    wrong = LowRank(*(np.zeros(shape, np.float32) for shape in shapes))
    with pytest.raises(WeightsError, match=f"{name}: .*{fault}"):
        network.adapter_slot(Adapter("mine", b"", {name: wrong}, ""), "float32", RANK)


@pytest.mark.parametrize("length", [1, LENGTH])
def test_experts_by_kernels_have_adapters_too(random_params, length):
    params, network = model(random_params, EXPERTS)
    pool = filled(network, drawn(EXPERTS, 1, RANK), drawn(EXPERTS, 2, RANK))
    adapted = network.with_adapters(params, pool, jnp.asarray([1, 0, NO_SLOT], jnp.int32)).text
    x = jax.random.normal(jax.random.key(0), (3, length, EXPERTS.dim))
    plain, few = hidden(adapted, EXPERTS, x), states(adapted, EXPERTS, x, experts=moe.by_kernels("reference"))[-1]
    np.testing.assert_allclose(few, plain, rtol=1e-4, atol=1e-4)


def test_numbers_that_only_float32_holds_are_refused_in_bfloat16(random_params):
    _, network = model(random_params, TEXT)
    (name, pair), *_ = drawn(TEXT, 1, 2).pairs.items()
    largest = np.full_like(pair.b, np.finfo(np.float32).max)
    adapter = Adapter("mine", b"", {name: LowRank(pair.a, largest)}, "")
    network.adapter_slot(adapter, "float32", RANK)
    with pytest.raises(WeightsError, match=f"{name}: numbers too large for bfloat16"):
        network.adapter_slot(adapter, "bfloat16", RANK)


def test_every_module_that_may_have_a_pair_is_a_field_of_the_pool():
    assert set(adapters.MODULES.values()) <= {field.name for field in dataclasses.fields(adapters.TextPairs)}
