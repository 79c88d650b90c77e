"""Pure functions on parameters that lie on a mesh: what they compute there is what one device computes."""

from __future__ import annotations

import dataclasses
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxphoton import functional as fn
from jaxphoton.config.mesh import MeshError
from jaxphoton.image.pooling import pooling_matrices
from jaxphoton.layers.spec import INT8, GroupedForm, by_path, with_forms
from jaxphoton.models.moondream.params import Params, abstract
from jaxphoton.weights import hub
from jaxphoton.weights.load import load_model
from tests.engine import tiny
from tests.engine.test_oracle_equality_moe import CONFIG as EXPERTS

ROWS, TOKENS = 4, 5
# LLVM's costly passes are most of what these programs take.
QUICK: dict[str, str | bool] = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": "True"}


def eightfold(config, layers: int):
    """With eight of all that is split over eight devices, and few layers."""
    text = dataclasses.replace(config.text, n_heads=8, n_kv_heads=8, n_layers=layers)
    if text.moe is not None:
        text = dataclasses.replace(text, moe=dataclasses.replace(text.moe, expert_inner_dim=16))
    vision = dataclasses.replace(config.vision, enc_n_heads=8, enc_n_layers=1)
    return dataclasses.replace(config, text=text, vision=vision)


# With experts a layer is dense and one has them.
CONFIGS = {"dense": eightfold(tiny.CONFIG, 1), "experts": eightfold(EXPERTS, 2)}


@cache
def parameters(kind: str) -> Params:
    return tiny.drawn(CONFIGS[kind])


def mesh_of(**axes: int) -> Mesh:
    devices = np.array(jax.devices()[: np.prod(list(axes.values()))])
    return Mesh(devices.reshape(*axes.values()), tuple(axes))


def inputs(config):
    """Crops of a picture with their pooling matrices, and prompts: ids, kinds, values."""
    random = np.random.default_rng(2)
    prefix = config.text.prefix_attn
    pixels = random.integers(0, 256, (3, config.vision.crop_size, config.vision.crop_size, 3), np.uint8)
    ids = random.integers(10, config.text.vocab_size, (ROWS, prefix + TOKENS)).astype(np.int32)
    kinds = np.zeros_like(ids)
    kinds[:, 1:prefix] = fn.inputs.IMAGE
    return pixels, *pooling_matrices((1, 2), config.vision), ids, kinds, np.zeros((*ids.shape, 2), np.float32)


def loss_of(config, params, pixels, rows, columns, ids, kinds, values):
    """A scalar loss, and what all functions gave on the way."""
    image = fn.encode_image(params, config, pixels, rows, columns)
    images = jnp.broadcast_to(image[None], (ROWS, *image.shape))
    hidden, cache = fn.prefill(params, config, ids[:, :-1], kinds[:, :-1], values[:, :-1], images)
    prefix = jnp.full(ROWS, config.text.prefix_attn, jnp.int32)
    at = jnp.full(ROWS, ids.shape[1] - 1, jnp.int32)
    last, _ = fn.decode_step(params, config, cache, ids[:, -1], kinds[:, -1], values[:, -1], at, prefix)
    found = fn.read(params, config, last)
    loss = jnp.mean(hidden**2) + sum(jnp.mean(jax.nn.logsumexp(each, axis=-1)) for each in found)
    return loss, (image, last, *found)


def run(config, params, *arguments, shardings=None):
    """((loss, results), gradient), the gradient laid out so."""
    call = jax.value_and_grad(partial(loss_of, config), has_aux=True)
    program = jax.jit(call, out_shardings=None if shardings is None else (None, shardings))
    return jax.block_until_ready(program.lower(params, *arguments).compile(QUICK)(params, *arguments))


@cache
def on_one_device(kind: str):
    return run(CONFIGS[kind], parameters(kind), *inputs(CONFIGS[kind]))


def near(one, other, rtol, least=0.0):
    np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-5 * max(least, np.abs(other).max()))


OWN = dict.fromkeys(("heads", "kv_heads", "mlp", "vocab", "vision_heads", "vision_mlp"), ("x",))
slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("kind", "axes", "rules"),
    [
        slow("dense", {"x": 8}, OWN),
        slow("experts", {"data": 2, "model": 2, "expert": 2}, None),
        slow("dense", {"model": 2}, None),
        slow("dense", {"data": 2, "model": 2}, None),
        slow("dense", {"data": 4, "model": 2}, {"embed": ("data",), "vision_embed": ("data",)}),
        slow("experts", {"model": 4}, None),
        slow("experts", {"expert": 2}, None),
    ],
    ids=str,
)
def test_results_and_gradients_are_those_of_one_device(kind, axes, rules):
    config, mesh = CONFIGS[kind], mesh_of(**axes)
    shardings = fn.shardings(config, mesh, rules)
    params = jax.device_put(parameters(kind), shardings)
    *picture, ids, kinds, values = inputs(config)
    prompts = jax.device_put(
        (ids, kinds, values), NamedSharding(mesh, PartitionSpec("data" if "data" in axes else None))
    )
    (loss, found), gradient = run(config, params, *picture, *prompts, shardings=shardings)
    (expected_loss, expected), expected_gradient = on_one_device(kind)
    near(loss, expected_loss, 1e-5)
    jax.tree.map(partial(near, rtol=1e-5), found, expected)
    jax.tree.map(partial(near, rtol=1e-4, least=1e-3), gradient, expected_gradient)
    jax.tree.map(
        lambda leaf, sharding: leaf.sharding == sharding or pytest.fail(f"{leaf.sharding}"), gradient, shardings
    )


def bytes_a_device(params, shardings) -> dict[str, int]:
    """By leaf."""
    return {
        name: np.prod(sharding.shard_shape(leaf.shape), dtype=int) * leaf.dtype.itemsize
        for (name, leaf), sharding in zip(by_path(params).items(), jax.tree.leaves(shardings), strict=True)
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_large_matrices_are_shared_and_small_leaves_are_whole(kind):
    params = abstract(CONFIGS[kind], "float32")
    shardings = fn.shardings(CONFIGS[kind], mesh_of(model=2, expert=4))
    assert jax.tree.structure(shardings) == jax.tree.structure(params)
    whole = {name: leaf.size * 4 for name, leaf in by_path(params).items()}
    ways = {name: whole[name] // size for name, size in bytes_a_device(params, shardings).items()}
    last = f"text.layers.{CONFIGS[kind].text.n_layers - 1}"
    for name in ("vision.qkv_w", "text.layers.0.in_w", f"{last}.out_w", "text.wte", "text.lm_head_w"):
        assert ways[name] == 8
    assert {ways[name] for name in ("text.ln", "text.post_ln", "vision.pos_emb", "region.coord_w")} == {1}
    if kind == "experts":
        assert ways[f"{last}.experts.fc1_w"] == ways[f"{last}.experts.fc2_w"] == 8
        assert ways[f"{last}.experts.router_w"] == 1


def test_matrices_in_few_bits_have_shardings_for_their_factors():
    config = CONFIGS["dense"]
    forms = {"text.layers.0.in_w": GroupedForm("int4", 16), "vision.qkv_w": INT8}
    params = with_forms(abstract(config, "float32"), forms)
    shardings: Any = fn.shardings(config, mesh_of(model=2), params=params)
    assert jax.tree.structure(shardings) == jax.tree.structure(params)
    assert shardings.text.layers[0].in_w.scale.spec == PartitionSpec(("model",), None)
    assert shardings.vision.qkv_w.scale.spec == PartitionSpec(None, ("model",))


def test_factors_of_groups_that_lie_on_several_devices_are_whole():
    config, axes = (
        CONFIGS["dense"],
        {2: PartitionSpec(None, ("model",)), 4: PartitionSpec(None, None)},
    )  # 32 columns of heads, 48 of the MLP
    params = with_forms(abstract(config, "float32"), {"text.layers.0.out_w": GroupedForm("int8", 8)})
    for devices, scale in axes.items():
        out: Any = fn.shardings(config, mesh_of(model=devices), params=params).text.layers[0].out_w
        assert out.matrix.spec == PartitionSpec(None, ("model",))
        assert out.scale.spec == scale


def test_an_axis_can_be_switched_off():
    shardings: Any = fn.shardings(CONFIGS["dense"], mesh_of(model=2), {"vocab": ()})
    assert shardings.text.wte.is_fully_replicated and not shardings.text.layers[0].in_w.matrix.is_fully_replicated


@pytest.mark.parametrize(
    ("axes", "rules", "fault"),
    [
        ({"model": 3}, None, "3 devices cannot share 8 heads evenly; 1, 2 would"),
        ({"x": 2}, {"heads": ("y",)}, "the rules name y; the mesh has the axes x"),
        ({"x": 2}, {"head": ("x",)}, "rules may be for .*heads.*, not for head$"),
        ({"x": 2}, {"heads": ("x",)}, "heads, kv_heads, mlp lie in one matrix"),
        ({"model": 2}, {"embed": ("model",)}, "embed and vision_mlp lie in one array"),
    ],
    ids=["uneven", "no axis of the mesh", "no axis of the parameters", "one of several", "twice"],
)
def test_what_cannot_be_is_refused(axes, rules, fault):
    with pytest.raises(MeshError, match=fault):
        fn.shardings(CONFIGS["dense"], mesh_of(**axes), rules)


def test_a_checkpoint_loads_by_shard_in_its_own_order():
    path, mesh = hub.resolve(hub.SHAPES), mesh_of(model=2)
    family, whole = load_model(path, jnp.float32)
    split = fn.own_order(family.config, mesh)
    _, params = load_model(path, jnp.float32, split)
    shardings = fn.shardings(family.config, mesh, params=params)
    for one, other, sharding in zip(*map(jax.tree.leaves, (params, whole, shardings)), strict=True):
        assert one.sharding.is_equivalent_to(sharding, one.ndim)
        np.testing.assert_array_equal(one, other)
    assert not params.text.layers[0].in_w.matrix.sharding.is_fully_replicated
