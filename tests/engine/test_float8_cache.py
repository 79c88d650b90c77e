"""Keys and values kept in float8."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxphoton.config import EngineConfig
from jaxphoton.engine import memory
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.spread import Spread
from jaxphoton.engine.state import Kernels, PagedCache, paged_attend
from jaxphoton.layers.mesh import Split
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.reading import named_config
from tests.engine import tiny
from tests.engine.schedules import schedule
from tests.engine.test_kernels import CONFIG
from tests.engine.test_mesh import mesh_of
from tests.engine.tiny import Loop, Poisoned

ENGINE = dataclasses.replace(
    tiny.ENGINE, step_rows=(8,), prefill_lengths=(16,), vision=((3, 9),), kv_dtype="float8", host_masks=False
)


def answers(kernels: str, step_form: str = "xla") -> list:
    engine = dataclasses.replace(ENGINE, kernels=kernels, step_form=step_form)
    programs = Programs(tiny.parameters(), MoondreamFamily(CONFIG), engine)
    cache, _ = programs.fresh_state()
    assert cache.k.dtype == cache.v.dtype == jnp.float8_e4m3fn
    loop = Loop(programs, Device(Poisoned(programs)))
    return [[(t.id, t.bins) for t in s.tokens] for number in range(4) for s in loop.run(schedule(number))[0]]


@pytest.mark.slow
def test_kernels_and_plain_forms_give_the_same_tokens():
    plain = answers("reference")
    assert sum(map(len, plain)) > 20
    assert answers("interpret") == plain
    assert answers("interpret", "fused") == plain


@pytest.mark.parametrize("scale", [None, 0.25])
def test_what_is_read_back_is_what_was_written_rounded_once(scale):
    rows, tokens, text = 2, 3, CONFIG.text
    random = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(random.normal(size=(rows, tokens, heads, text.head_dim)), jnp.float32)
        for heads in (text.n_heads, text.n_kv_heads, text.n_kv_heads)
    )
    k = k.at[0, 0, 0, 0].set(1e6)  # beyond the largest float8
    scales = None if scale is None else jnp.full((text.n_layers, 2), scale, jnp.float32)
    positions = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32)[None], (rows, tokens))
    nothing = jnp.zeros(rows, jnp.int32)
    tables = jnp.arange(1, 1 + rows, dtype=jnp.int32)[:, None]
    attending = paged_attend(
        Kernels("reference"), 4, tables, positions, jnp.ones((rows, tokens), bool), nothing, scales
    )
    cache = PagedCache.zeros(MoondreamFamily(CONFIG).cache, 1 + rows, 4, jnp.float8_e4m3fn)
    out, cache = attending(1, q, k, v, cache)
    factor = 1.0 if scale is None else scale
    stored = cache.k[1, tables[:, 0], :tokens].astype(jnp.float32) * factor
    assert stored[0, 0, 0, 0] == 448 * factor
    rest = jnp.abs(stored - k).at[0, 0, 0, 0].set(0.0)
    assert float(jnp.max(rest / (jnp.abs(k) + 2**-6 * factor))) < 2**-4 + 1e-3  # three bits behind the point
    assert bool(jnp.all(jnp.isfinite(out)))


def test_a_device_of_a_mesh_writes_and_reads_its_heads():
    rows, tokens, text = 2, 3, tiny.CONFIG.text
    split = Split(mesh_of("model=2"), {"heads": text.n_heads, "kv_heads": text.n_kv_heads})
    random = np.random.default_rng(0)
    given = tuple(
        jnp.asarray(random.normal(size=(rows, tokens, heads, text.head_dim)), jnp.float32)
        for heads in (text.n_heads, text.n_kv_heads, text.n_kv_heads)
    )
    scales = jnp.asarray(random.uniform(0.2, 2.0, (text.n_layers, 2)), jnp.float32)
    positions = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32)[None], (rows, tokens))
    tables, valid = jnp.arange(1, 1 + rows, dtype=jnp.int32)[:, None], jnp.ones((rows, tokens), bool)

    def run(scales, cache, q, k, v):
        attending = paged_attend(Kernels("reference"), 4, tables, positions, valid, jnp.zeros(rows, jnp.int32), scales)
        return attending(1, q, k, v, cache)

    network = tiny.FAMILY.network
    cache = PagedCache.zeros(tiny.FAMILY.cache, 1 + rows, 4, jnp.float8_e4m3fn)
    spread, heads = Spread(split, network.specs(jnp.float32), network), PartitionSpec(None, None, "model", None)
    parts = jax.tree.map(lambda sharding: sharding.spec, spread.shardings(cache))
    whole = PartitionSpec()
    several = jax.shard_map(
        run, mesh=split.mesh, in_specs=(whole, parts, heads, heads, heads), out_specs=(heads, parts), check_vma=False
    )
    out, after = jax.jit(several)(scales, jax.device_put(cache, spread.shardings(cache)), *given)
    expected, alone = run(scales, cache, *given)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    for pool, of_one in ((after.k, alone.k), (after.v, alone.v)):
        np.testing.assert_array_equal(pool.astype(jnp.float32), of_one.astype(jnp.float32))
        assert {shard.data.nbytes for shard in pool.addressable_shards} == {pool.nbytes // 2}


def test_pools_that_the_kernels_cannot_address_are_made_smaller():
    family, engine = (
        MoondreamFamily(named_config("moondream2")),
        EngineConfig(kv_dtype="float8", max_rows=64, step_rows=(64,)),
    )
    numbers = 24 * 16 * 32 * 64  # of a page
    for limit in (2**31 * 3, 2**35):
        pages = memory.pool_pages(family, engine, 1, limit, used=0, scratch=0)
        assert not 2**31 < pages * numbers <= 2**32
        assert pages * numbers >= 2**31 - numbers


def test_half_the_bytes_of_bfloat16():
    spec = MoondreamFamily(CONFIG).cache
    shapes = [jax.eval_shape(lambda d=d: PagedCache.zeros(spec, 4, 16, d)) for d in ("float8_e4m3fn", "bfloat16")]
    small, large = (sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shape)) for shape in shapes)
    assert 2 * small == large
