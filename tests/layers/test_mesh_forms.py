"""Matrices in few bits, and experts, of which each device of a mesh has a share, give what whole ones give."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxphoton.config.mesh import MeshError
from jaxphoton.layers import moe
from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.mesh import Split
from jaxphoton.layers.placed import GroupedByKernel, placed
from jaxphoton.layers.sharded import sharded, total
from jaxphoton.layers.spec import GroupedForm, Joined, Spec, by_path, like
from jaxphoton.layers.weight import Dense
from tests.engine.test_mesh import mesh_of
from tests.layers.forms import in_float8, in_int4, in_int8

FLOAT32 = jnp.dtype(jnp.float32)
COUNTS = {"heads": 4, "kv_heads": 4, "mlp": 64, "vocab": 32, "experts": 4, "expert_mlp": 16}
OUT = Joined(("heads", 64), ("mlp", 128))
IN = Joined(("heads", 16), ("kv_heads", 16), ("mlp", 32))
SPECS = {
    "out": Dense(Spec((32, 192), FLOAT32, ("embed", OUT))),
    "into": Dense(Spec((64, 192), FLOAT32, (IN, "embed"))),
    "head": Dense(Spec((32, 192), FLOAT32, ("vocab", "embed"))),
}
# in_int4 has zero points; its groups of 64 lie over the borders of the shares of heads, which are 32 columns wide.
FORMS = {
    "int8": in_int8,
    "float8": in_float8,
    "int4": partial(in_int4, group=64),
}


def drawn(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def on_mesh(split: Split, function, params: Any, out: Any, x: jax.Array, over: PartitionSpec) -> Any:
    """A function of a device's share of parameters, as `sharded` gives them, and of x."""
    parts = jax.tree.map(lambda leaf: leaf.sharding.spec, params)
    run = jax.shard_map(function, mesh=split.mesh, in_specs=(parts, over), out_specs=out, check_vma=False)
    return jax.block_until_ready(jax.jit(run)(params, jax.device_put(x, NamedSharding(split.mesh, over))))


@pytest.mark.parametrize(("form", "kernel"), [*((form, False) for form in FORMS), ("int4", True)], ids=str)
def test_shares_of_matrices(form, kernel):
    split = Split(mesh_of("model=2"), COUNTS)
    weights = {name: FORMS[form](drawn(i, *SPECS[name].matrix.shape)) for i, name in enumerate(SPECS)}
    params = split.placed(weights, SPECS)
    x = drawn(9, 3, 192)

    def run(params: Any, ordered: jax.Array) -> tuple[jax.Array, ...]:
        here = placed(sharded(params, split, by_path(SPECS)), "interpret" if kernel else "plain")
        if kernel:
            assert isinstance(here["out"].base, GroupedByKernel)
        whole = jax.lax.all_gather(ordered, "model", axis=1, tiled=True)
        result = [here["out"].einsum("...d,fd->...f", ordered)]
        return *result, *(here[name].einsum("...d,fd->...f", whole) for name in ("into", "head"))

    ordered, plain = split.ordered(x, Spec(x.shape, FLOAT32, (None, OUT))), Spec(x.shape, FLOAT32, (None, None))
    out = (PartitionSpec(), PartitionSpec(None, ("model",)), PartitionSpec())
    over = split.partition(dataclasses.replace(plain, axes=(None, OUT)))
    results = on_mesh(split, run, params, out, ordered, over)
    expected = [weights["out"].einsum("...d,fd->...f", x)]
    expected += [weights[name].einsum("...d,fd->...f", ordered) for name in ("into", "head")]
    expected[1] = split.ordered(expected[1], Spec((3, 64), FLOAT32, (None, IN)))
    for got, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)
    for name, weight in weights.items():
        for leaf, given in zip(jax.tree.leaves(params[name]), jax.tree.leaves(weight), strict=True):
            assert leaf.dtype == given.dtype
        matrix = jax.tree.leaves(params[name])[0]
        assert {shard.data.nbytes for shard in matrix.addressable_shards} == {matrix.nbytes // 2}


def test_groups_over_the_border_of_shares_are_cut_there():
    split = Split(mesh_of("model=2"), COUNTS)
    weight = in_int4(drawn(0, 32, 192), 64)
    cut = split.regrouped({"out": weight}, {"out": SPECS["out"]})["out"]
    assert isinstance(cut, Grouped) and cut.scale.shape == (32, 6)
    np.testing.assert_array_equal(cut.dense("float32").matrix, weight.dense("float32").matrix)
    specs = split.regrouped({"out": GroupedForm("int4", 64)(SPECS["out"].matrix)}, {"out": SPECS["out"]})
    assert specs["out"].scale.shape == cut.scale.shape
    fits = in_int4(drawn(0, 32, 192), 32)
    assert split.regrouped({"out": fits}, {"out": SPECS["out"]})["out"] is fits


@pytest.mark.parametrize(
    ("columns", "group", "wrong"),
    [
        (OUT, 64, "2 devices cannot share 64 numbers of heads in groups of 64: smaller groups may"),
        (Joined(("heads", 34), ("mlp", 158)), 2, "cannot share 34 numbers of heads in groups of 2"),
    ],
)
def test_a_group_or_byte_that_two_devices_would_share_is_refused(columns, group, wrong):
    split = Split(mesh_of("model=2"), COUNTS | {"heads": 2})
    grouped = GroupedForm("int4", group)(Spec((32, 192), FLOAT32, ("embed", columns)))
    with pytest.raises(MeshError, match=wrong):
        split.shardings(grouped)


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_shares_of_experts(form):
    experts, inner, dim, tokens, k = 4, 16, 64, 5, 2
    split = Split(mesh_of("model=2,expert=2"), COUNTS)
    few = {"int8": in_int8, "int4": partial(in_int4, group=16)}[form]
    params = moe.ExpertParams(
        Dense(drawn(0, experts, dim)), few(drawn(1, experts, 2 * inner, dim)), few(drawn(2, experts, dim, inner))
    )
    up = Spec((experts, 2 * inner, dim), FLOAT32, ("experts", Joined(*(("expert_mlp", inner),) * 2), "embed"))
    down = Spec((experts, dim, inner), FLOAT32, ("experts", "embed", "expert_mlp"))
    specs = moe.ExpertParams(Dense(Spec((experts, dim), FLOAT32, (None, "embed"))), Dense(up), Dense(down))
    h, biases = drawn(3, tokens, dim), jnp.zeros((1, experts), jnp.float32)
    route = moe.route(params.router_w, biases, 0, k, h)
    expected = moe.apply(params, route, h, moe.mix_dense)
    shares = split.placed(params, specs)

    def run(params: Any, h: jax.Array) -> jax.Array:
        here = sharded({"experts": params}, split, {})["experts"]
        return total(moe.apply(here, moe.route(here.router_w, biases, 0, k, h), h, moe.mix_dense), here.summed)

    got = on_mesh(split, run, shares, PartitionSpec(), h, PartitionSpec())
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-3)
    assert jax.tree.structure(like(specs, params)) == jax.tree.structure(shares)
