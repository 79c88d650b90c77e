"""Attention in loops: sums over chunks of pages, heads together and one behind the other; who chooses it."""

from __future__ import annotations

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas import paged_loop
from kernels_pallas.dispatch import KernelUnavailable, Target, choose
from kernels_pallas.prefix_attention import prefix_attention
from kernels_pallas.prefix_attention.cases import SMALL


@pytest.mark.parametrize("few", [0, 10_000])  # queries that share the product of all heads
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_sums_go_on_from_chunk_to_chunk(case, few, monkeypatch):
    for name, value in (("FEW_QUERIES", few), ("FEW_ENTRIES", 2 * case.page), ("MOST_ENTRIES", 3 * case.page)):
        monkeypatch.setattr(paged_loop, name, value)
    arrays, keywords = case.inputs(3)
    # Traced anew, with the constants of this test.
    expected, actual = (
        np.asarray(jax.jit(partial(prefix_attention, **keywords, backend=backend))(*arrays), np.float64)
        for backend in ("reference", "loop")
    )
    assert np.isfinite(actual).all()
    tolerance = 2e-6 if case.dtype == "float32" else 1e-2
    assert np.max(np.abs(actual - expected)) <= tolerance * np.max(np.abs(expected))


@pytest.mark.parametrize("longest", [0, 5, 17, 64])
def test_a_row_is_read_as_far_as_it_goes(longest):
    """Chunks are counted: a short row in a wide table costs what it holds."""
    size, chunk = 4, paged_loop.FEW_ENTRIES
    pages = 4 * chunk // size
    pool = jax.random.normal(jax.random.key(0), (1, pages, size, 2, 8))
    reads = []

    def counted(queries, keys, values, mask, factor, sums):
        jax.debug.callback(lambda: reads.append(1))
        return update(queries, keys, values, mask, factor, sums)

    update, paged_loop._update = paged_loop._update, counted
    try:
        table = jnp.arange(pages, dtype=jnp.int32)[None]
        last = jnp.full((1, 1), longest * size - 1, jnp.int32)
        q = jax.random.normal(jax.random.key(1), (1, 1, 2, 8))
        attend = inspect.unwrap(paged_loop.attend)  # traced anew, and for nobody else
        attend(q, pool, pool, table, last, jnp.zeros(1, jnp.int32), 0, None, None).block_until_ready()
        jax.effects_barrier()
    finally:
        paged_loop._update = update
    assert len(reads) == -(-longest * size // chunk)


@pytest.mark.parametrize("tokens", [65, 200, 730])
def test_an_image_prefix_is_one_chunk_no_longer_than_it_is(tokens, monkeypatch):
    size, pages, chunks = 16, 128, []

    def seen(queries, keys, *rest):
        chunks.append(keys.shape[-2])  # once a trace
        return update(queries, keys, *rest)

    update = paged_loop._update
    monkeypatch.setattr(paged_loop, "_update", seen)
    pool = jnp.ones((1, pages, size, 1, 8))
    last = jnp.full((1, tokens), tokens - 1, jnp.int32)
    table = jnp.arange(pages, dtype=jnp.int32)[None]
    q = jnp.ones((1, tokens, 1, 8))
    attend = inspect.unwrap(paged_loop.attend)
    jax.eval_shape(lambda: attend(q, pool, pool, table, last, jnp.zeros(1, jnp.int32), 0, None, None))
    assert all(max(tokens, 128) <= chunk < max(tokens, 128) + size for chunk in chunks) and chunks


def test_a_cpu_takes_the_loop_where_there_is_one_and_a_gpu_does_not():
    cpu, gpu = Target("cpu"), Target("cuda", 90, 132)
    assert choose("op", None, cpu, loop=True) == choose("op", "auto", cpu, loop=True) == "loop"
    assert choose("op", None, cpu) == choose("op", "reference", cpu, loop=True) == "reference"
    assert choose("op", None, gpu, loop=True) == "triton"
    assert choose("op", None, gpu, ["too odd"], loop=True) == "reference"
    with pytest.raises(KernelUnavailable, match="op: there is no loop form of it"):
        choose("op", "loop", cpu)
