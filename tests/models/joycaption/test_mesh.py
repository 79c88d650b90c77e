"""The model's parameters on a mesh of devices compute what they compute on one, and an engine there answers as the
oracle does: with adapters, beside weights in few bits.

`--mesh-schedules N` runs schedules 0 to N - 1 on each mesh; `-m ''` takes all meshes.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.layers.cache import DenseCache, dense_attend
from jaxphoton.layers.mesh import Split, engine_split
from jaxphoton.layers.sharded import sharded
from jaxphoton.layers.spec import by_path
from jaxphoton.models.joycaption.device import JoyCaptionNetwork
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from jaxphoton.models.protocol import Kernels
from jaxphoton.oracle.oracle import Oracle
from tests.engine.comparison import Comparison
from tests.engine.few_bits import in_few_bits
from tests.engine.test_mesh import mesh_of
from tests.engine.tiny import Loop, Poisoned
from tests.models.joycaption.drawn import SMALL, drawn
from tests.models.joycaption.test_engine import ENGINE, adapters_of, pictures_of, schedule

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


# Eight key/value heads, as the published model has.
WIDE = dataclasses.replace(
    SMALL,
    text=dataclasses.replace(
        SMALL.text, hidden_size=32, intermediate_size=32, num_attention_heads=16, num_key_value_heads=8
    ),
)
MESHES = [
    pytest.param(SMALL, "model=2", id="model=2"),
    pytest.param(WIDE, "model=4", id="model=4", marks=pytest.mark.slow),
    pytest.param(WIDE, "model=8", id="model=8", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("config", "mesh"), MESHES)
def test_random_schedules_give_what_the_oracle_gives(config, mesh, pytestconfig):
    family = JoyCaptionFamily(config)
    family.prefix_lengths = family.prefix_lengths[:1]
    params = in_few_bits(drawn(config), family, "int4")
    split = engine_split(mesh_of(mesh), family.network.counts())
    programs = Programs(split.placed(params, family.network.specs("float32")), family, ENGINE, split=split)
    comparison = Comparison(Oracle(params, family), family.grammars)
    loop, pictures, adapters = Loop(programs, Device(Poisoned(programs))), pictures_of(family), adapters_of(family)
    for seed in range(pytestconfig.getoption("--mesh-schedules")):
        for sequence in loop.run(schedule(seed, pictures, adapters))[0]:
            comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)
    assert not comparison.near_ties
    cut = programs.params.text.layers[0].qkv_w.matrix.addressable_shards[0].data.shape[0]
    assert cut * split.devices == params.text.layers[0].qkv_w.matrix.shape[0]


@pytest.mark.parametrize("devices", [2, 3])
def test_devices_share_the_pictures(devices):
    """Each has a whole encoder and its share of three pictures, or of as many as make shares even."""
    params, pixels = drawn(SMALL), jnp.asarray(np.random.default_rng(2).integers(0, 256, (3, 30, 30, 3), np.uint8))
    mesh = jax.make_mesh((devices,), ("model",))
    kernels = dataclasses.replace(KERNELS, crops=("model",))
    shared = jax.shard_map(
        lambda encoder, pixels: NETWORK.encode(encoder, pixels, images=3, kernels=kernels),
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    run = jax.jit(shared)
    wanted = jax.jit(lambda encoder: NETWORK.encode(encoder, pixels, images=3, kernels=KERNELS))(params.vision)
    np.testing.assert_allclose(run(params.vision, pixels), wanted, atol=1e-5)
    lowered = run.lower(params.vision, pixels).as_text()
    each = -(-3 // devices)
    assert f"tensor<{each}x4x32xf32>" in lowered and "tensor<3x4x32xf32>" not in lowered  # inside its MLPs
