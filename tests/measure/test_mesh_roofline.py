"""What a mesh costs, against the engine's own programs and parameters there."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh

from jaxphoton.config.mesh import MeshError
from jaxphoton.engine.compiled import Programs
from jaxphoton.layers.mesh import engine_split
from jaxphoton.measure.chips import find_chip
from jaxphoton.measure.cost_model import collectives, costs_of, storage_of
from jaxphoton.measure.mesh import planned_split, share_bytes
from jaxphoton.measure.mesh_roofline import PCIE, links_of, shared_parts, together_s
from jaxphoton.models.costs import Collective
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.registry import named_family
from tests.engine import tiny
from tests.engine.test_mesh_adapters import with_heads
from tests.engine.test_oracle_equality_moe import CONFIG as EXPERTS

MOONDREAM2, MOONDREAM3 = named_family("moondream2"), named_family("moondream3")
KINDS = {"psum": "sum", "psum_invariant": "sum", "all_gather": "gather"}


class Traced(Programs):
    """Nothing is compiled."""

    def _compile_to_fit(self) -> Any:
        self.pages = 16
        return self._jobs()


def together(jaxpr, times: int = 1) -> Counter[tuple[str, int]]:
    """(kind, bytes) of the sums and gathers in a program, and how often it does them."""
    found = Counter()
    for equation in jaxpr.eqns:
        if kind := KINDS.get(equation.primitive.name):
            for out in equation.outvars:
                found[kind, out.aval.size * out.aval.dtype.itemsize] += times
        inner = times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
        for each in jaxprs_in_params(equation.params):
            found += together(each, inner)
    return found


@pytest.mark.parametrize(
    ("config", "mesh"),
    [(tiny.CONFIG, {"model": 2}), (with_heads(EXPERTS, 4), {"expert": 2, "model": 2})],
    ids=["dense", "experts"],
)
def test_programs_do_together_what_the_costs_say(config, mesh):
    family = MoondreamFamily(config)
    devices = np.array(jax.devices()[: math.prod(mesh.values())]).reshape(tuple(mesh.values()))
    split = engine_split(Mesh(devices, tuple(mesh)), family.network.counts())
    engine = dataclasses.replace(tiny.ENGINE, step_rows=(8,), prefill_lengths=(6,), vision=((3, 9),), host_masks=False)
    programs = Traced(split.shapes(family.network.specs("float32")), family, engine, split=split)
    for key, name in ((("step", 8), "step 8"), (("prefix", 3, 10), "prefix 3"), (("vision", 3, 9), "encode 3 x 3")):
        job: Any = programs[key]
        function, arguments, _ = job
        found = together(jax.make_jaxpr(function)(*arguments).jaxpr)
        expected = Counter()
        for each in collectives(family, "float32", name, devices.size):
            expected[each.kind, each.bytes] += each.count
        if key[0] == "prefix":  # XLA drops the sum of the last layer, which nobody reads
            expected["sum", 4 * 3 * 10 * config.text.dim] += 1
        assert found == expected, name


@pytest.mark.parametrize("quantize", [None, "int4"])
@pytest.mark.parametrize("family", [MOONDREAM2, MOONDREAM3], ids=["dense", "experts"])
def test_shares_are_those_of_the_parameters(family, quantize):
    split, storage = planned_split(family, {"model": 2}), storage_of("bfloat16", quantize)
    shares = share_bytes(family, "bfloat16", quantize, split)
    whole = costs_of(family).weights(storage)
    assert shares["vision"] == pytest.approx(costs_of(family).encode(1, 1, storage).shared(2).weight_bytes, rel=1e-3)
    assert 0.5 <= shares["text"] / whole["text"] < 0.51 and shares["region"] == pytest.approx(whole["region"], rel=1e-6)


def test_sums_and_gathers_take_their_hops_and_their_bytes():
    small, large = Collective("sum", 10, 0), Collective("sum", 1, 10**9)
    assert [round(together_s(small, devices, 1e9) / 10 * 1e6) for devices in (2, 4, 8)] == [10, 18, 34]
    assert together_s(large, 4, 100e9) == pytest.approx(1.5 * 1e9 / 80e9, rel=0.01)
    assert together_s(Collective("gather", 1, 10**9), 4, 100e9) == pytest.approx(0.75 * 1e9 / 80e9, rel=0.01)


def test_whole_experts_wait_for_the_busiest_device():
    costs = costs_of(MOONDREAM3)
    few, many = costs.busiest(1, 4), costs.busiest(128, 4)
    assert many == 1.0 < few < 4.0 and costs_of(MOONDREAM2).busiest(1, 4) == costs.busiest(1, 1) == 1.0
    chip = find_chip("H200")
    by_width, whole = (
        shared_parts(MOONDREAM3, chip, "bfloat16", mesh, [1], 850)[0].share for mesh in ({"model": 4}, {"expert": 4})
    )
    assert whole.cost.bytes > by_width.cost.bytes


def test_a_mesh_pays_for_one_row_and_replicas_for_many():
    chip = find_chip("H200")
    parts = shared_parts(MOONDREAM2, chip, "bfloat16", {"model": 2}, [1, 32], 850)
    steps, links = {part.one.name: part for part in parts if part.one.name.startswith("step")}, links_of(chip)
    assert steps["step 1"].mesh_s(links["NVLink"]) < steps["step 1"].replica_s == steps["step 1"].one_s
    assert steps["step 32"].mesh_s(PCIE["PCIe 4"]) > steps["step 32"].replica_s
    assert steps["step 32"].share.cost.bytes < 0.52 * steps["step 32"].one.cost.bytes
    assert "NVLink" not in links_of(find_chip("L4"))


def test_a_mesh_that_does_not_divide_the_model_is_refused():
    with pytest.raises(MeshError, match="3 devices cannot share 32 heads evenly; 1, 2 would"):
        planned_split(MOONDREAM2, {"data": 1, "model": 3, "expert": 1})
