"""The same where rows of one batch have different adapters, of which some wait for a slot and others are swapped."""

from __future__ import annotations

import dataclasses

import pytest

from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from tests.engine import tiny
from tests.engine.comparison import Comparison
from tests.engine.schedules import schedule
from tests.engine.test_oracle_equality import RESET, run_and_compare
from tests.engine.tiny import Loop, Poisoned, Schedule, at_once, request
from tests.models.moondream.drawn import drawn

SLOTS, RANK = 2, 4
ADAPTERS = tuple(drawn(tiny.CONFIG.text, seed, RANK, kept) for seed, kept in enumerate(("", "attn", "mlp")))
ENGINE = dataclasses.replace(
    tiny.ENGINE, prefill_lengths=(6,), vision=((3, 9),), host_masks=False, adapter_slots=SLOTS, adapter_rank=RANK
)


@pytest.fixture(scope="module")
def programs() -> Programs:
    return Programs(tiny.parameters(), tiny.FAMILY, ENGINE)


@pytest.fixture(scope="module")
def device(programs) -> Device:
    return Device(Poisoned(programs))


@pytest.fixture(scope="module")
def comparison(oracle) -> Comparison:
    return Comparison(oracle)


def test_random_schedules_give_what_the_oracle_gives(programs, device, comparison, pytestconfig, capsys):
    first, count = pytestconfig.getoption("--first-schedule"), pytestconfig.getoption("--schedules")
    loop, set_back = Loop(programs, device), 0
    for number in range(first, count):
        if number % RESET == 0:
            device.reset()
        try:
            set_back += run_and_compare(loop, comparison, schedule(number, adapters=(*ADAPTERS, None)))
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


def test_one_question_with_every_adapter_in_one_batch(programs, device, comparison):
    asked = [dataclasses.replace(request("text", 6, 1, temperature=0.0), adapter=a) for a in (*ADAPTERS, None)]
    assert len({comparison.expected(one).tokens for one in asked}) == len(asked)
    run_and_compare(Loop(programs, device), comparison, Schedule(at_once(*asked, *asked)))
