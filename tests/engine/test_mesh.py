"""One model over several devices gives what one device gives: the engine on meshes of CPU devices, and the oracle.

`--mesh-schedules N` runs schedules 0 to N - 1 on each mesh; `-m ''` takes all meshes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxphoton.config.mesh import AXES, MeshError, mesh_shape
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.layers.mesh import Split, engine_split
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.oracle.oracle import Oracle
from tests.engine import test_oracle_equality_moe as experts
from tests.engine import tiny
from tests.engine.comparison import Comparison
from tests.engine.test_oracle_equality import run_and_compare, run_schedules
from tests.engine.tiny import Loop, Poisoned, Schedule, at_once, request

STEPS = 100


def wide(config: ModelConfig) -> ModelConfig:
    """With 8 heads and experts of a width that 8 devices can share."""
    text = dataclasses.replace(config.text, n_heads=8, n_kv_heads=8)
    if text.moe is not None:
        text = dataclasses.replace(text, moe=dataclasses.replace(text.moe, expert_inner_dim=16))
    return dataclasses.replace(config, text=text, vision=dataclasses.replace(config.vision, enc_n_heads=8))


MODELS = {
    "moondream2": (wide(tiny.CONFIG), tiny.GRAMMARS, {}),
    "moondream3": (wide(experts.CONFIG), experts.GRAMMARS, experts.KINDS),
}
MESHES = [
    ("moondream2", "model=2"),
    ("moondream2", "model=4"),
    ("moondream2", "model=8"),
    ("moondream3", "model=2"),
    ("moondream3", "model=4"),
    ("moondream3", "model=8"),
    ("moondream3", "expert=2"),
    ("moondream3", "expert=4"),
    ("moondream3", "model=2,expert=2"),
    ("moondream3", "model=2,expert=4"),
]
KEPT = {("moondream3", "model=2,expert=2")}  # in every run, with Moondream 2 in test_mesh_adapters


def mesh_of(text: str) -> Mesh:
    sizes = tuple(mesh_shape(text).values())
    return Mesh(np.array(jax.devices()[: np.prod(sizes)]).reshape(sizes), AXES)


@pytest.fixture(
    scope="module",
    params=[pytest.param(each, marks=[] if each in KEPT else pytest.mark.slow, id="-".join(each)) for each in MESHES],
)
def spread(request) -> tuple[Programs, Comparison, Any]:
    """The programs of a model on a mesh, and what their answers are compared with."""
    model, mesh = request.param
    config, grammars, kinds = MODELS[model]
    params, family = tiny.drawn(config), MoondreamFamily(config)
    split = engine_split(mesh_of(mesh), family.network.counts())
    engine = dataclasses.replace(tiny.ENGINE, step_rows=(8,), prefill_lengths=(6,), vision=((3, 9),), host_masks=False)
    placed = split.placed(params, family.network.specs(np.float32))
    programs = Programs(placed, family, engine, split=split)
    return programs, Comparison(Oracle(params, family), grammars), (kinds,) if kinds else ()


def test_random_schedules_give_what_the_oracle_gives(spread, pytestconfig, capsys):
    programs, comparison, kinds = spread
    count = pytestconfig.getoption("--mesh-schedules")
    set_back = run_schedules(Loop(programs, Device(Poisoned(programs))), comparison, range(count), *kinds)
    with capsys.disabled():
        print(f"\n{count} schedules, {comparison.compared} requests, {set_back} set back")


class Watched(Device):
    """Notes where its pools lie before every step, and what its steps were given."""

    def __init__(self, programs: Programs):
        super().__init__(programs)
        self.places, self.controls = [], []

    def step(self, plan):
        places = [
            shard.data.unsafe_buffer_pointer()
            for pool in (self.launch.cache.k, self.launch.cache.v)
            for shard in pool.addressable_shards
        ]
        self.places.append(places)
        result = super().step(plan)
        self.controls.append(result[0])
        return result


def test_pools_stay_where_they_are(spread):
    programs, comparison, _ = spread
    device = Watched(programs)
    asked = [request(prompt=4, max_tokens=80, seed=seed, temperature=1.5) for seed in range(6)]
    run_and_compare(Loop(programs, device), comparison, Schedule(at_once(*asked)))
    run_and_compare(Loop(programs, device), comparison, Schedule(at_once(*asked)))
    assert len(device.places) >= STEPS
    assert all(places == device.places[0] for places in device.places)
    assert len(set(device.places[0])) == len(device.places[0]) == 2 * programs.params.text.wte.sharding.mesh.size


def test_a_step_is_given_one_fresh_array(spread):
    """NumPy arrays are not copied to several CPU devices either: one that is used again would change under a step."""
    programs, comparison, _ = spread
    device = Watched(programs)
    run_and_compare(Loop(programs, device), comparison, Schedule(at_once(request(max_tokens=20, temperature=1.5))))
    assert len({id(control) for control in device.controls}) == len(device.controls) > 5
    assert all(isinstance(control, np.ndarray) for control in device.controls)


@pytest.mark.parametrize(
    ("mesh", "wrong"),
    [
        ("model=3", "3 devices cannot share 8 heads evenly; 1, 2 would"),
        ("model=2,expert=3", "6 devices cannot share 8"),
    ],
)
def test_a_mesh_that_does_not_divide_the_heads_is_refused(mesh, wrong):
    network = MoondreamFamily(MODELS["moondream3"][0]).network
    with pytest.raises(MeshError, match=wrong):
        Split(mesh_of(mesh), network.counts())


@pytest.mark.parametrize(
    "text",
    ["", "model", "model=0", "model=x", "tensor=2", "model=2,model=2", "model=2;expert=2", "model=-1", "model=²"],
)
def test_what_is_no_mesh(text):
    with pytest.raises(MeshError):
        mesh_shape(text)


def test_what_is_left_out_is_one():
    assert mesh_shape(" expert=4, model=2 ") == {"data": 1, "model": 2, "expert": 4}
