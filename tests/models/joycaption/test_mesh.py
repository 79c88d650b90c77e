"""The model's parameters on a mesh of two devices compute what they compute on one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxphoton.layers.cache import DenseCache, dense_attend
from jaxphoton.layers.mesh import Split
from jaxphoton.layers.sharded import sharded
from jaxphoton.layers.spec import by_path
from jaxphoton.models.joycaption.device import JoyCaptionNetwork
from jaxphoton.models.protocol import Kernels
from tests.engine.test_mesh import mesh_of
from tests.models.joycaption.drawn import SMALL, drawn

NETWORK, KERNELS = JoyCaptionNetwork(SMALL), Kernels("plain")


def logits(params, kv_heads: int, pixels, ids):
    images = NETWORK.encode(params.vision, pixels, images=1, kernels=KERNELS)
    x = NETWORK.embed_prefix(params, ids, images)
    positions = jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
    cache = DenseCache.zeros(2, kv_heads, 4, 1, ids.shape[1], jnp.float32)
    attend = dense_attend(positions, jnp.zeros(1, jnp.int32), ids.shape[1])
    hidden, _ = NETWORK.forward(params, x, positions, attend, cache, KERNELS)
    return NETWORK.logits(params, hidden)


def test_a_prompt_with_an_image_on_two_devices():
    params, specs = drawn(SMALL), NETWORK.specs("float32")
    pixels = np.random.default_rng(1).integers(0, 256, (1, 30, 30, 3), np.uint8)
    ids = jnp.asarray([[1, 5, -1, -1, -1, -1, 7, 8]], jnp.int32)
    split = Split(mesh_of("model=2"), NETWORK.counts())
    placed = split.placed(params, specs)
    whole = (PartitionSpec(), PartitionSpec())
    run = jax.shard_map(
        lambda params, pixels, ids: logits(sharded(params, split, by_path(specs)), 1, pixels, ids),
        mesh=split.mesh,
        in_specs=(jax.tree.map(lambda leaf: leaf.sharding.spec, placed), *whole),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    wanted = jax.jit(lambda params: logits(params, 2, pixels, ids))(params)
    np.testing.assert_allclose(jax.jit(run)(placed, pixels, ids), wanted, atol=1e-5)
    assert placed.text.layers[0].qkv_w.matrix.addressable_shards[0].data.shape == (24, 16)
