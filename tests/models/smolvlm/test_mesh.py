"""The model's parameters on a mesh of devices compute what they compute on one, and the devices share the frames."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxphoton.layers.cache import DenseCache, dense_attend
from jaxphoton.layers.mesh import Split, engine_split
from jaxphoton.layers.sharded import sharded
from jaxphoton.layers.spec import by_path
from jaxphoton.models.protocol import Kernels
from jaxphoton.models.smolvlm.device import SmolVLMNetwork
from tests.engine.test_mesh import mesh_of
from tests.models.smolvlm.drawn import SMALL, drawn

pytestmark = pytest.mark.slow

NETWORK, KERNELS = SmolVLMNetwork(SMALL), Kernels("plain")
# Two pictures of two frames and of three, whose crops lie in any order, and two crops that are nobody's.
PIXELS = jnp.asarray(np.random.default_rng(1).integers(0, 256, (7, 14, 14, 3), np.uint8))
FRAMES = jnp.asarray([[4, 1, 0], [2, 0, 3]], jnp.int32)
IDS = jnp.asarray([[1, 5, *[-1] * 8, 7, 8], [1, *[-1] * 5, 9, *[-1] * 5]], jnp.int32)


def images(encoder, kernels=KERNELS):
    return NETWORK.encode(encoder, PIXELS, FRAMES, images=2, kernels=kernels)


def logits(params, kv_heads: int, kernels=KERNELS):
    x = NETWORK.embed_prefix(params, IDS, images(params.vision, kernels))
    positions = jnp.broadcast_to(jnp.arange(IDS.shape[1], dtype=jnp.int32), IDS.shape)
    cache = DenseCache.zeros(2, kv_heads, 4, 2, IDS.shape[1], jnp.float32)
    attend = dense_attend(positions, jnp.zeros(2, jnp.int32), IDS.shape[1])
    hidden, _ = NETWORK.forward(params, x, positions, attend, cache, kernels)
    return NETWORK.logits(params, hidden)


def on(split: Split, function, params):
    """A function of a device's share of the parameters."""
    specs = NETWORK.specs("float32")
    placed = split.placed(params, specs)
    run = jax.shard_map(
        lambda params: function(sharded(params, split, by_path(specs))),
        mesh=split.mesh,
        in_specs=(jax.tree.map(lambda leaf: leaf.sharding.spec, placed),),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    return placed, jax.jit(run)


def test_a_prompt_with_images_on_two_devices():
    params = drawn(SMALL)
    placed, run = on(Split(mesh_of("model=2"), NETWORK.counts()), lambda own: logits(own, 1), params)
    np.testing.assert_allclose(run(placed), jax.jit(lambda params: logits(params, 2))(params), atol=1e-5)
    assert placed.text.layers[0].qkv_w.matrix.addressable_shards[0].data.shape == (16, 16)
    assert placed.vision.tower.fc1_w.matrix.addressable_shards[0].data.shape == (2, 10, 12)


def test_devices_with_whole_encoders_share_the_frames():
    params, split = drawn(SMALL), engine_split(mesh_of("model=2"), NETWORK.counts())
    kernels = dataclasses.replace(KERNELS, crops=split.crops)
    placed, run = on(split, lambda own: images(own.vision, kernels), params)
    np.testing.assert_allclose(run(placed), jax.jit(images)(params.vision), atol=1e-5)
    assert placed.vision.tower.fc1_w.matrix.addressable_shards[0].data.shape == (2, 20, 12)
    lowered = run.lower(placed).as_text()
    assert "tensor<4x16x12xf32>" in lowered and "tensor<7x16x12xf32>" not in lowered  # of 7, or 8, each has 4
