"""The same where rows of one batch have different adapters, of which some wait for a slot and others are swapped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import Params
from jaxphoton.oracle.oracle import Oracle
from tests.engine import test_oracle_equality_moe, tiny
from tests.engine.comparison import Comparison
from tests.engine.schedules import KINDS, schedule
from tests.engine.test_oracle_equality import RESET, run_and_compare
from tests.engine.tiny import Loop, Poisoned, Schedule, at_once, request
from tests.models.moondream.drawn import drawn

SLOTS, RANK = 2, 4
MODELS = {"dense": (tiny.CONFIG, KINDS), "experts": (test_oracle_equality_moe.CONFIG, test_oracle_equality_moe.KINDS)}
ENGINE = dataclasses.replace(
    tiny.ENGINE, prefill_lengths=(6,), vision=((3, 9),), host_masks=False, adapter_slots=SLOTS, adapter_rank=RANK
)


@pytest.fixture(scope="module", params=MODELS)
def model(request) -> tuple[ModelConfig, Mapping[str, float]]:
    """The settings of a model, and the grammars of its requests."""
    return MODELS[request.param]


@pytest.fixture(scope="module")
def adapters(model) -> tuple[Adapter, ...]:
    """Of all matrices, of attention alone, of MLPs alone."""
    return tuple(drawn(model[0].text, seed, RANK, kept) for seed, kept in enumerate(("", "attn", "mlp")))


@pytest.fixture(scope="module")
def params(model) -> Params:
    return tiny.drawn(model[0])


@pytest.fixture(scope="module")
def programs(model, params) -> Programs:
    return Programs(params, MoondreamFamily(model[0]), ENGINE)


@pytest.fixture(scope="module")
def device(programs) -> Device:
    return Device(Poisoned(programs))


@pytest.fixture(scope="module")
def comparison(model, params) -> Comparison:
    return Comparison(Oracle(params, MoondreamFamily(model[0])), registry.grammars(model[0].tokenizer))


def test_random_schedules_give_what_the_oracle_gives(
    model, adapters, programs, device, comparison, pytestconfig, capsys
):
    first, count = pytestconfig.getoption("--first-schedule"), pytestconfig.getoption("--schedules")
    loop, set_back = Loop(programs, device), 0
    for number in range(first, count):
        if number % RESET == 0:
            device.reset()
        try:
            set_back += run_and_compare(loop, comparison, schedule(number, model[1], (*adapters, None)))
        except BaseException as error:
            error.add_note(f"schedule {number}: again with --first-schedule {number} --schedules {number + 1}")
            raise
    with capsys.disabled():
        print(
            f"\n{count - first} schedules with adapters, {comparison.compared} requests, {set_back} set back;"
            f" not exactly the oracle's: {len(comparison.near_ties)}"
        )
    assert len(comparison.near_ties) <= max(1, comparison.compared // 1000), comparison.near_ties
    assert set_back > 0 or count - first < 100, "the schedules never set a sequence back"


def test_one_question_with_every_adapter_in_one_batch(adapters, programs, device, comparison):
    asked = [dataclasses.replace(request("text", 6, 1, temperature=0.0), adapter=a) for a in (*adapters, None)]
    assert len({comparison.expected(one).tokens for one in asked}) == len(asked)
    run_and_compare(Loop(programs, device), comparison, Schedule(at_once(*asked, *asked)))
