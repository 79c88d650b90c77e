"""The network with its matrices in other forms: the same code, the same signatures; and its logical axes."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.layers import moe
from jaxphoton.layers.cache import DenseCache, dense_attend
from jaxphoton.layers.spec import Joined, Spec, by_path
from jaxphoton.layers.weight import Dense, RowScaled, Weight
from jaxphoton.models.moondream import network, region, vision
from jaxphoton.models.moondream.config import MoeConfig, TextConfig, VisionConfig
from jaxphoton.models.moondream.params import Form, abstract, specs
from jaxphoton.models.moondream.pictures import crop_owners
from jaxphoton.models.moondream.reading import named_config
from tests.layers.forms import Adapted, HStack, float8_experts, in_float8, in_int4, in_int4_symmetric, in_int8
from tests.models.moondream.conftest import REGION

VISION = VisionConfig(
    enc_dim=16, enc_patch_size=4, enc_n_layers=2, enc_ff_dim=24, enc_n_heads=2, proj_out_dim=32, proj_inner_dim=24,
    crop_size=12, max_crops=3, overlap_margin=1,
)  # fmt: skip
EXPERTS = MoeConfig(num_experts=4, start_layer=1, experts_per_token=2, expert_inner_dim=8)
TEXT = TextConfig(
    dim=32, ff_dim=48, n_layers=2, vocab_size=80, max_context=64, n_heads=4, n_kv_heads=4, prefix_attn=10,
    tau_attn=True, moe=EXPERTS,
)  # fmt: skip


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(VISION, TEXT)


def is_weight(node) -> bool:
    return isinstance(node, Weight)


@partial(jax.jit, static_argnames="form")
def every_matrix(params, form):
    """The tree with each of its matrices in another form."""
    return jax.tree.map(lambda node: form(node.matrix) if is_weight(node) else node, params, is_leaf=is_weight)


@jax.jit
def dense(params):
    return jax.tree.map(lambda node: node.dense("float32") if is_weight(node) else node, params, is_leaf=is_weight)


def computed(params, mix=moe.mix_dense) -> list[np.ndarray]:
    """What every part of the network makes of the same input."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    return [np.asarray(part) for part in _everything(params, pixels, mix)]


@partial(jax.jit, static_argnames="mix")
def _everything(params, pixels: jax.Array, mix: moe.Mix) -> tuple[jax.Array, ...]:
    ids = jnp.asarray([[0, 5, 9, 3], [0, 7, 7, 1]], jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(4, dtype=jnp.int32), (2, 4))
    cache = DenseCache.zeros(TEXT.n_layers, TEXT.n_kv_heads, TEXT.head_dim, 2, 8, jnp.float32)
    attend = dense_attend(positions, jnp.zeros(2, jnp.int32), 8)
    x = params.text.wte[ids] + region.encode_coordinate(params.region, jnp.full((2, 4, 1), 0.3, jnp.float32))
    hidden, _ = network.forward(params.text, TEXT, x, positions, attend, cache, moe.Experts(moe.route, mix))
    eye = jnp.broadcast_to(jnp.eye(VISION.grid, dtype=jnp.float32), (2, VISION.grid, VISION.grid))
    image = vision.embed_images(params.vision, VISION, pixels, eye, eye, jnp.asarray(crop_owners(2)), images=1)
    return network.logits(params.text, hidden), image, *region.decode(params.region, REGION, hidden[:, -1])


@pytest.mark.parametrize("form", [in_int8, in_float8, in_int4, in_int4_symmetric])
def test_the_whole_network_takes_matrices_in_any_form(params, form):
    """Neither the network nor a signature knows of forms."""
    stored = every_matrix(params, form)
    assert {type(node) for node in jax.tree.leaves(stored, is_leaf=is_weight) if is_weight(node)} == {
        type(form(jnp.ones((4, 4), jnp.float32)))
    }
    for got, wanted, original in zip(computed(stored), computed(dense(stored)), computed(params), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-3 * np.abs(wanted).max())
        assert np.abs(got - original).max() > 0, "the form lost nothing: the test sees no other matrices"


def test_few_tokens_of_experts_in_a_form_without_a_kernel_are_computed_all_the_same(params):
    stored = every_matrix(params, in_int4)
    one, two = (computed(stored, mix)[0] for mix in (moe.mix, moe.mix_dense))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_adapters_beside_a_matrix_are_chosen_row_by_row(params):
    """Rows with different adapters in one batch have what each would have with its adapter merged into the matrix.

    An adapter of fc1 alone has zeros for the rows of the attention.
    """
    layer, q = params.text.layers[0], TEXT.qkv_dim
    random = np.random.default_rng(3)
    a, up = (jnp.asarray(random.normal(0, 0.3, shape), jnp.float32) for shape in ((3, 2, 32), (3, 48, 2)))
    b = jnp.pad(up, ((0, 0), (q, 0), (0, 0)))

    def with_up(weight: Weight):
        layers = (dataclasses.replace(layer, in_w=weight), *params.text.layers[1:])
        return dataclasses.replace(params, text=dataclasses.replace(params.text, layers=layers))

    both = computed(with_up(Adapted(layer.in_w, a, b, jnp.asarray([2, 1], jnp.int32))))[0]
    for row, slot in enumerate((2, 1)):
        merged = computed(with_up(Dense(layer.in_w.matrix + b[slot] @ a[slot])))[0]
        np.testing.assert_allclose(both[row], merged[row], atol=1e-4)


def test_the_sides_of_an_output_matrix_may_be_stored_apart(params):
    """proj and fc2 in 8 bits have rows with factors of their own: they lie side by side, each with its factors."""
    attended = TEXT.n_heads * TEXT.head_dim
    layer = params.text.layers[0]
    whole = layer.out_w.matrix * jnp.where(jnp.arange(attended + 48) < attended, 1.0, 100.0)[None]

    def with_out(weight: Weight):
        layers = (dataclasses.replace(layer, out_w=weight), *params.text.layers[1:])
        return dataclasses.replace(params, text=dataclasses.replace(params.text, layers=layers))

    sides = HStack((in_int8(whole[:, :attended]), in_int8(whole[:, attended:])))
    got, wanted = (computed(with_out(weight))[0] for weight in (sides, sides.dense("float32")))
    np.testing.assert_allclose(got, wanted, atol=2e-3 * np.abs(wanted).max())
    # One factor for both sides would drown the smaller one.
    error = [float(jnp.abs(w.dense("float32").matrix - whole)[:, :attended].max()) for w in (sides, in_int8(whole))]
    assert error[0] < 0.1 * error[1]


def test_every_leaf_says_what_its_axes_are():
    for name, leaf in by_path(float8_experts(specs(named_config("moondream3"), form=Form(kv_scales=True)))).items():
        assert isinstance(leaf, Spec) and len(leaf.axes) == len(leaf.shape)
        named = [axis for axis in leaf.axes if axis]
        assert len(set(named)) == len(named), f"{name}: a mesh axis can split one axis of an array"
        joined = [(axis, size) for axis, size in zip(leaf.axes, leaf.shape, strict=True) if isinstance(axis, Joined)]
        assert all(len(axis) == size for axis, size in joined)


def test_the_parts_of_a_joined_matrix_are_known():
    leaves = by_path(specs(named_config("moondream2")))
    inputs = Joined(("heads", 2048), ("kv_heads", 2048), ("kv_heads", 2048), ("mlp", 8192))
    assert leaves["text.layers.0.in_w"].axes == (inputs, "embed")
    assert leaves["text.layers.0.out_w"].axes == ("embed", Joined(("heads", 2048), ("mlp", 8192)))
    assert leaves["text.in_b"].axes == ("layers", inputs)


def test_a_row_scaled_matrix_keeps_its_factors_beside_it():
    config = named_config("moondream3")
    tree = float8_experts(abstract(config))
    names = by_path(tree)
    assert {name for name in names if name.startswith("text.layers.4.experts")} == {
        f"text.layers.4.experts.{leaf}" for leaf in ("router_w", "fc1_w", "fc1_scale", "fc2_w", "fc2_scale")
    }
    assert isinstance(tree.text.layers[4].experts.fc1_w, RowScaled)
