"""The same where rows of one batch have different adapters, of which some wait for a slot and others are swapped.

`--adapter-schedules N` runs schedules 0 to N - 1 of each model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
import pytest

from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.engine import Engine, Submission
from jaxphoton.engine.launch import Launch
from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import Params
from jaxphoton.oracle.oracle import Oracle
from jaxphoton.requests.tokens import Token
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


# Of experts each program takes long to compile; tests/engine/test_golden_adapters.py has them in every run.
@pytest.fixture(scope="module", params=["dense", pytest.param("experts", marks=pytest.mark.slow)])
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
    first, count = pytestconfig.getoption("--first-schedule"), pytestconfig.getoption("--adapter-schedules")
    loop, set_back = Loop(programs, device), 0
    for number in range(first, count):
        if number % RESET == 0:
            device.reset()
        try:
            set_back += run_and_compare(loop, comparison, schedule(number, model[1], (*adapters, None)))
        except BaseException as error:
            error.add_note(f"schedule {number}: again with --first-schedule {number} --adapter-schedules {number + 1}")
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


def test_adapters_come_while_others_run_and_nothing_compiles(adapters, programs, comparison):
    """A third adapter is submitted behind the first token of a request that goes on, which never stands still."""
    asked = [dataclasses.replace(request("text", 6, max_tokens=40, temperature=1.5), adapter=a) for a in adapters]
    compiled, events = list[str](), list[tuple[str, int]]()

    def note(event: str, duration_secs: float, **_) -> None:
        if "compile" in event:
            compiled.append(event)

    def see(name: str, launch: Launch) -> None:
        events.append((name, launch.number))

    with Engine(programs, on_event=see) as engine:
        engine.submit(asked[0]).future.result()  # whatever the first use costs is paid
        assert engine.drain(60)  # zombies too: their commits come behind the result
        del events[:]
        jax.monitoring.register_event_duration_secs_listener(note)
        try:
            later = list[Submission]()

            def on_token(token: Token, finish: str | None) -> None:
                if len(later) < 2:
                    later.append(engine.submit(asked[1 + len(later)]))

            running = engine.submit(asked[0], on_token)
            done = [running.future.result(), *(submission.future.result() for submission in later)]
        finally:
            jax.monitoring.unregister_event_duration_listener(note)
    assert not compiled and len(later) == 2
    for one, generation in zip((asked[0], asked[1], asked[2]), done, strict=True):
        comparison.compare(one, list(generation.tokens), generation.finish_reason)
    # While there is work the next launch is enqueued before the last one is read, whatever is put into slots meanwhile.
    kinds = [name for name, _ in events]
    reads = [at for at, name in enumerate(kinds) if name == "commit_begin"]
    behind = [kinds[:at].count("launch") - kinds[:at].count("commit_begin") for at in reads]
    assert behind.count(1) <= len(done) and behind.count(2) == len(reads) - behind.count(1)


def test_what_other_rows_have_changes_no_row(adapters, programs):
    """The same rows with and without a neighbour's adapter, in programs of one shape."""
    loop = Loop(programs)
    mine = dataclasses.replace(request("text", 6, 1, temperature=1.5, max_tokens=12), adapter=adapters[0])
    seen = []
    for other in (None, *adapters):
        beside = dataclasses.replace(request("text", 9, max_tokens=20, temperature=0.0), adapter=other)
        sequences, _ = loop.run(Schedule(at_once(mine, beside)))
        seen.append([(token.id, token.bins, np.float32(token.logprob)) for token in sequences[0].tokens])
    tokens = [[(token, bins) for token, bins, _ in one] for one in seen]
    assert all(one == tokens[0] for one in tokens)
    for one in seen:
        np.testing.assert_allclose([logprob for *_, logprob in one], [logprob for *_, logprob in seen[0]], atol=1e-5)


def test_an_adapter_that_does_not_fit_is_refused_with_its_modules(adapters, programs):
    large = dataclasses.replace(adapters[0], name="large", pairs={
        name: LowRank(np.repeat(pair.a, 2, -2), np.repeat(pair.b, 2, -1)) for name, pair in adapters[0].pairs.items()
    }, digest=b"large")  # fmt: skip
    with Engine(programs) as engine, pytest.raises(ValueError, match=r"large does not fit: text\.blocks\.0.*rank 8"):
        engine.submit(dataclasses.replace(request(), adapter=large))
