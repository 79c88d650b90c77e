"""The plan against published sizes, the running engine and the programs' own analysis."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton import platform
from jaxphoton.config import EngineConfig
from jaxphoton.engine.memory import DeviceMemoryError, whole_pages
from jaxphoton.layers.spec import by_path
from jaxphoton.measure.chips import CHIPS
from jaxphoton.measure.compiled import compiled_scratch
from jaxphoton.measure.cost_model import planned_family
from jaxphoton.measure.memory_plan import Planner, client_fraction, usable_bytes
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.names import placements
from jaxphoton.models.naming import placed_shape
from jaxphoton.models.registry import named_family
from tests.engine import tiny

GIB = 2**30
MOONDREAM2 = named_family("moondream2")


@pytest.fixture(autouse=True)
def default_client(monkeypatch):
    for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)


def test_moondream2_at_32_rows_of_1024_positions():
    leaves = by_path(MOONDREAM2.network.abstract("bfloat16"))
    elements = 0
    for place in placements(MOONDREAM2.config):
        size = 1
        for extent in placed_shape(leaves[place.leaf].shape, place.index):
            size *= extent
        elements += size
    planner = Planner(MOONDREAM2, "bfloat16")
    plan = planner.load(EngineConfig().with_rows(32), 1024)
    assert plan.weights_bytes == pytest.approx(2 * elements, rel=0.01)  # the published file's bytes
    assert round(plan.weights_bytes / 1e9, 2) == 3.85
    assert planner.position_bytes == 192 * 1024
    # The last page of an image's prefix has a hole of 6 positions.
    assert plan.kv_bytes == (1 + 32 * 65) * 16 * 192 * 1024
    assert plan.total_bytes > plan.weights_bytes + plan.kv_bytes + plan.temporaries_bytes


@settings(max_examples=30)
@given(st.sampled_from(["moondream2", "moondream-0.5b"]), st.integers(8, 200), st.sampled_from([800, 1024, 2048]))
def test_what_fits_fills_the_device_and_one_row_more_does_not_fit(family, gigabytes, context):
    planner, memory = Planner(named_family(family), "bfloat16"), gigabytes * GIB
    try:
        rows = planner.most_rows(memory, context)
    except DeviceMemoryError:
        assert planner.load(EngineConfig().with_rows(1), context).total_bytes > usable_bytes(memory, EngineConfig())
        return
    plan = planner.fit(EngineConfig().with_rows(rows), memory)
    assert plan.total_bytes <= usable_bytes(memory, EngineConfig())
    assert planner.requests(plan, EngineConfig().with_rows(rows), [context]) == {context: rows}
    assert planner.load(EngineConfig().with_rows(rows + 1), context).total_bytes > usable_bytes(memory, EngineConfig())


def test_the_smallest_gpu_holds_the_load_and_smaller_ones_do_not():
    planner = Planner(MOONDREAM2, "bfloat16")
    for rows in (1, 32, 100, 250):
        plan = planner.load(EngineConfig().with_rows(rows), 2048)
        chip = planner.smallest(plan)
        assert chip is not None and chip.memory is not None
        assert plan.total_bytes <= usable_bytes(chip.memory, EngineConfig())
        smaller = [c.memory for c in CHIPS if c.memory and c.memory < chip.memory]
        assert all(usable_bytes(memory, EngineConfig()) < plan.total_bytes for memory in smaller)
    assert planner.smallest(planner.load(EngineConfig().with_rows(2000), 2048)) is None


def test_pages_of_a_large_device_are_no_more_than_the_rows_need():
    engine = EngineConfig().with_rows(32)
    plan = Planner(MOONDREAM2, "bfloat16").fit(engine, 141 * 10**9)
    assert plan.pages == whole_pages(MOONDREAM2.max_context, engine)


def test_the_share_that_jax_takes_can_be_set(monkeypatch):
    assert client_fraction() == 0.75
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.5")
    assert usable_bytes(1000, EngineConfig()) == 450
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "much")
    with pytest.raises(ValueError, match="XLA_CLIENT_MEM_FRACTION=much"):
        client_fraction()


def test_estimates_are_near_what_xla_says_and_are_kept(monkeypatch, tmp_path):
    config = planned_family("shapes").config
    # A program needs scratch for one layer at a time; few layers compile sooner.
    vision = dataclasses.replace(config.vision, enc_n_layers=2)
    config = dataclasses.replace(config, vision=vision, text=dataclasses.replace(config.text, n_layers=2))
    family = MoondreamFamily(config)
    # The plain programs are what the estimates are of.
    engine = EngineConfig(
        max_rows=8,
        step_rows=(8,),
        prefill_rows=(2,),
        prefill_lengths=(64,),
        vision=((1, 5),),
        host_masks=False,
        kernels="reference",
    )
    # The programs themselves go where all tests keep theirs.
    places = SimpleNamespace(**vars(platform) | {"cache_folder": lambda: tmp_path})
    monkeypatch.setattr("jaxphoton.measure.compiled.platform", places)
    found = compiled_scratch(family, "float32", engine)
    guessed = Planner(family, "float32").estimates(engine)
    assert found.keys() == guessed.keys()
    ratios = {key: guessed[key] / size for key, size in found.items()}
    assert all(0.7 < ratio < 2 for ratio in ratios.values()), ratios
    monkeypatch.setattr("jaxphoton.measure.compiled.Programs", None)  # the second time nothing is compiled
    assert compiled_scratch(family, "float32", engine) == found
    with pytest.raises(TypeError):
        compiled_scratch(family, "float32", dataclasses.replace(engine, prefill_lengths=(32,)))


LIVE = """
import gc, json, sys
import jax
from jaxphoton import Moondream
from jaxphoton.config import EngineConfig

engine = EngineConfig(max_rows=8, step_rows=(8,), prefill_rows=(4,), prefill_lengths=(32,), vision=((4, 20),))
with Moondream.from_pretrained("shapes", engine=engine) as model:
    model.query(question="red?", settings={"max_tokens": 2})
    gc.collect()
    print(json.dumps(sum(array.nbytes for array in jax.live_arrays())))
"""


def test_the_running_engine_holds_what_was_planned():
    done = subprocess.run([sys.executable, "-c", LIVE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    family = planned_family("shapes")
    plan = Planner(family, "float32").load(EngineConfig().with_rows(8), family.max_context)
    planned = plan.weights_bytes + plan.kv_bytes + plan.row_state_bytes
    assert json.loads(done.stdout) == pytest.approx(planned, rel=0.05)


def test_the_parts_of_a_plan_add_up():
    plan = Planner(MoondreamFamily(tiny.CONFIG), "float32").load(EngineConfig().with_rows(8), 50)
    parts = plan.weights_bytes + plan.kv_bytes + plan.row_state_bytes + plan.temporaries_bytes + plan.activation_bytes
    assert plan.total_bytes == parts
    assert max(plan.temporaries.values()) == plan.temporaries_bytes
    assert any(line.startswith("temporaries") and "estimated" in line for line in plan.lines())
