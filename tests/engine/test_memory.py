"""The pool's size: as large as is useful, never larger than fits, and an error where nothing fits."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from jaxphoton.config import ConfigError, EngineConfig
from jaxphoton.engine import buckets, compiled, places
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.memory import (
    DeviceMemoryError,
    human,
    kv_position_bytes,
    pool_pages,
    request_pages,
    row_state_bytes,
    whole_pages,
)
from jaxphoton.engine.state import PagedCache, RowState
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.reading import named_config
from tests.engine.test_mesh import mesh_of
from tests.engine.tiny import ENGINE, FAMILY, parameters, request, sequence_of

GIB = 2**30
MOONDREAM2 = MoondreamFamily(named_config("moondream2"))


def test_bytes_are_those_of_the_arrays():
    cache = jax.eval_shape(lambda: PagedCache.zeros(FAMILY.cache, 7, ENGINE.page_size, "float32"))
    stored = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))
    assert stored == 7 * ENGINE.page_size * kv_position_bytes(FAMILY.cache, 4)
    rows = jax.eval_shape(lambda: RowState.zeros(5, 3))
    assert row_state_bytes(FAMILY, 5) == sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(rows))
    assert kv_position_bytes(MOONDREAM2.cache, 2) == 192 * 1024


@pytest.mark.parametrize("positions", [11, 12, 13, 14, 15, 30, 96])
def test_a_request_has_the_pages_that_the_engine_gives_it(positions):
    sequence = sequence_of(request("text", positions - FAMILY.prefix_lengths[-1], 0))
    stored = positions + -sequence.prefix_length % ENGINE.page_size
    assert request_pages(FAMILY, ENGINE.page_size, positions) == -(-stored // ENGINE.page_size)


@given(
    limit=st.integers(6 * GIB, 200 * GIB),
    used=st.integers(0, 3 * GIB),
    scratch=st.integers(0, GIB),
    rows=st.integers(2, 300),
    fraction=st.floats(0.75, 1),
)
def test_the_pool_fills_the_memory_but_never_overfills_it(limit, used, scratch, rows, fraction):
    engine = EngineConfig(max_rows=rows, step_rows=(rows,), memory_fraction=fraction)
    pages = pool_pages(MOONDREAM2, engine, 2, limit, used, scratch)
    page = 16 * 192 * 1024
    left = limit * fraction - used - scratch - row_state_bytes(MOONDREAM2, rows) - pages * page
    assert left > -1
    assert pages <= whole_pages(MOONDREAM2.max_context, engine)
    assert pages == whole_pages(MOONDREAM2.max_context, engine) or left < page + 1


def test_where_the_device_does_not_say_and_where_the_user_does():
    assert pool_pages(MOONDREAM2, EngineConfig(), 2, None, 0, 0) == 1 + 32 * (2048 // 16 + 1)
    assert pool_pages(MOONDREAM2, EngineConfig(kv_pages=77), 2, GIB, 2 * GIB, 0) == 77


def test_a_device_for_not_even_one_request_is_refused_with_the_sum():
    with pytest.raises(DeviceMemoryError, match=r"3\.60 GiB may be used .* 3\.59 GiB are taken .* needs .* more"):
        pool_pages(MOONDREAM2, EngineConfig(), 2, 4 * GIB, int(3.59 * GIB), 0)


WRONG = {
    "max_rows": [0, "2", 2.0, None, True],
    "depth": [0, 3],
    "page_size": [0, None],
    "kv_pages": [1, "9"],
    "memory_fraction": [0.0, 1.01, math.nan, "0.5"],
    "step_rows": [(), 32, "32", (0, 32), (32, 8), (8, "32"), (8,)],
    "prefill_rows": [(), (0, 1)],
    "prefill_lengths": [None, (32, 32)],
    "vision": [(), (1, 5), ((1,),), "x"],
    "max_waiting": [-1, None],
    "image_workers": [-1, 0.5],
    "image_timeout": [0, -1, math.nan, None],
    "host_masks": [1, None],
    "kernels": ["cuda", None, ["auto"]],
    "step_form": ["triton", "", "+", None, "norm+", "output+norm", "norm+norm", "norm,input", ("norm",)],
    "kv_dtype": ["float9"],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in WRONG.items() for value in values])
def test_settings_out_of_range_or_of_another_kind_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        EngineConfig(**{name: value})


def test_lists_of_sizes_are_as_good_as_tuples():
    lists: dict[str, Any] = {"step_rows": [2, 32], "vision": [[1, 5]]}
    tuples = EngineConfig(step_rows=(2, 32), vision=((1, 5),))
    assert EngineConfig(**lists) == tuples and hash(EngineConfig(**lists)) == hash(tuples)


def test_sizes_for_people():
    assert [human(n) for n in (0, 1023, 1024, 3 * 2**20, 3 * GIB // 2)] == [
        "0 B",
        "1023 B",
        "1.00 KiB",
        "3.00 MiB",
        "1.50 GiB",
    ]


def test_programs_size_their_pool_by_the_device_and_log_the_plan(monkeypatch, caplog):
    engine = dataclasses.replace(ENGINE, prefill_rows=(1,), prefill_lengths=(16,), vision=((1, 4),), host_masks=False)
    monkeypatch.setattr(places, "memory_of", lambda device: (460_000, 100_000))
    with caplog.at_level(logging.INFO, compiled.__name__):
        programs = Programs(parameters(), FAMILY, engine)
    assert 10 < programs.pages < whole_pages(FAMILY.max_context, engine)
    cache, _ = programs.fresh_state()
    assert cache.k.shape[1] == programs.pages
    assert f"{programs.pages} pages" in caplog.text and "weights, vision" in caplog.text
    monkeypatch.setattr(places, "memory_of", lambda device: (300_000, 100_000))
    with pytest.raises(DeviceMemoryError, match="too small"):
        Programs(parameters(), FAMILY, engine)


def test_a_mesh_has_the_memory_of_the_device_with_the_least_left(monkeypatch):
    mesh = mesh_of("model=3")
    left = {device: (1000, used) for device, used in zip(mesh.devices.flat, (100, 700, 300), strict=True)}
    monkeypatch.setattr(places, "memory_of", left.__getitem__)
    assert places.Here(NamedSharding(mesh, PartitionSpec())).memory() == (1000, 700)


@pytest.mark.parametrize("key", [("step", 8), ("forward", 8), ("prefill", 3, 16), ("prefix", 3, 10), ("vision", 3, 9)])
def test_scratch_is_estimated_for_a_share_of_heads_and_inner_widths(key):
    whole, half = (buckets.estimate(key, FAMILY, ENGINE, 4, ways) for ways in (1, 2))
    assert 0.5 * whole < half < whole
    sampled = ("sample", 8)
    assert buckets.estimate(sampled, FAMILY, ENGINE, 4, 2) == buckets.estimate(sampled, FAMILY, ENGINE, 4)
