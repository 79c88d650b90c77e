"""Adapters beside weights in few bits, and ids that the host restricts, on a mesh: what the oracle gives; and what lies
on each device.

`--mesh-schedules N` runs schedules 0 to N - 1 of each model; `-m ''` takes that with experts too.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.memory import MemoryPlan
from jaxphoton.layers.mesh import Split
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.oracle.oracle import Oracle
from tests.engine import test_oracle_equality_moe as experts
from tests.engine import tiny
from tests.engine.comparison import Comparison
from tests.engine.few_bits import mixed
from tests.engine.schedules import KINDS
from tests.engine.test_constraints import restricted
from tests.engine.test_mesh import mesh_of
from tests.engine.test_oracle_equality import run_and_compare, run_schedules
from tests.engine.tiny import Loop, Poisoned, Schedule, at_once, request
from tests.models.moondream.drawn import drawn

SLOTS, RANK = 2, 4
ENGINE = dataclasses.replace(
    tiny.ENGINE,
    step_rows=(8,),
    prefill_lengths=(6,),
    vision=((3, 9),),
    adapter_slots=SLOTS,
    adapter_rank=RANK,
)


def with_heads(config: ModelConfig, count: int) -> ModelConfig:
    return dataclasses.replace(config, vision=dataclasses.replace(config.vision, enc_n_heads=count))


MODELS = {
    "moondream2": (tiny.CONFIG, "model=2", KINDS),
    "moondream3": (with_heads(experts.CONFIG, 4), "model=2,expert=2", experts.KINDS),
}


class Setting:
    """A model on a mesh, and its three adapters: of all matrices, of attention alone, of MLPs alone."""

    def __init__(self, config: ModelConfig, mesh: str):
        family, params = MoondreamFamily(config), mixed(tiny.drawn(config), config)
        self.split = Split(mesh_of(mesh), family.network.counts())
        self.engine = dataclasses.replace(ENGINE, host_masks=config.text.moe is None)
        placed = self.split.placed(params, family.network.specs(np.float32))
        self.plans: list[MemoryPlan] = []
        self.programs = Watched(self.plans, placed, family, self.engine, split=self.split)
        self.device = Device(Poisoned(self.programs))
        self.comparison = Comparison(Oracle(params, family), registry.grammars(config.tokenizer))
        self.adapters = tuple(drawn(config.text, seed, RANK, kept) for seed, kept in enumerate(("", "attn", "mlp")))


class Watched(Programs):
    def __init__(self, plans: list[MemoryPlan], *args, **options):
        self._plans = plans
        super().__init__(*args, **options)

    def _tell(self, plan):
        self._plans.append(plan)


@pytest.fixture(scope="module", params=["moondream2", pytest.param("moondream3", marks=pytest.mark.slow)])
def model(request) -> tuple[Setting, dict[str, float]]:
    config, mesh, kinds = MODELS[request.param]
    return Setting(config, mesh), kinds


def test_random_schedules_give_what_the_oracle_gives(model, pytestconfig, capsys):
    setting, kinds = model
    loop, comparison = Loop(setting.programs, setting.device), setting.comparison
    count = pytestconfig.getoption("--mesh-schedules")
    set_back = run_schedules(loop, comparison, range(count), kinds, (*setting.adapters, None))
    with capsys.disabled():
        print(f"\n{count} schedules with adapters, {comparison.compared} requests, {set_back} set back")


def test_one_question_with_every_adapter_in_one_batch(model):
    """Three adapters on two slots: the last comes from the host with the launch that needs it."""
    setting, _ = model
    asked = [dataclasses.replace(request("text", 6, 1, temperature=0.0), adapter=a) for a in (*setting.adapters, None)]
    assert len({setting.comparison.expected(one).tokens for one in asked}) == len(asked)
    run_and_compare(Loop(setting.programs, setting.device), setting.comparison, Schedule(at_once(*asked, *asked)))


def test_ids_that_the_host_restricts(model):
    setting, _ = model
    if not setting.engine.host_masks:
        pytest.skip("without masks: fewer programs")
    asked = [restricted(request("text", 5, seed % 2, max_tokens=7, seed=seed), seed) for seed in range(2)]
    asked += [dataclasses.replace(request("text", 6, 1, max_tokens=7), adapter=a) for a in setting.adapters[:2]]
    asked[1] = dataclasses.replace(asked[1], adapter=setting.adapters[0])
    run_and_compare(Loop(setting.programs, setting.device), setting.comparison, Schedule(at_once(*asked)))


def test_a_memory_plan_counts_what_one_device_has(model):
    setting, _ = model
    programs, plan = setting.programs, setting.plans[-1]
    pool, (cache, rows) = programs.fresh_pool(), programs.fresh_state()
    for device in setting.split.mesh.devices.flat:
        here = partial(bytes_on, device)
        assert plan.weights_bytes - plan.weights["adapters"] == here(programs.params)
        assert plan.weights["adapters"] == 2 * here(pool)  # as much again waits for a slot
        assert plan.kv_bytes == here(cache)
        assert plan.row_state_bytes == here(rows)
    whole = sum(leaf.nbytes for leaf in pool)
    assert plan.weights["adapters"] < 2 * whole


def bytes_on(device: Any, tree: Any) -> int:
    return sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.device == device
    )
