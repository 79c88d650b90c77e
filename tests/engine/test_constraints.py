"""Rows whose ids the host restricts: forward now, sample later, and everybody else as before."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from jaxphoton.constraints.automaton import pack_bits, unpack_bits
from jaxphoton.engine.device import Device
from jaxphoton.engine.engine import Engine
from jaxphoton.engine.request import Request
from tests.engine.comparison import Comparison
from tests.engine.schedules import schedule
from tests.engine.test_faults import PATIENCE, Faults
from tests.engine.tiny import CONFIG, Loop, Poisoned, Schedule, at_once, request, with_engine

VOCAB = CONFIG.text.vocab_size
EVERY = 2  # of the schedules, which others run without masks


class Whim:
    """Allows a subset of ids that depends on everything accepted so far; fails at will."""

    def __init__(self, seed: int, mask_fails_at: int | None = None, accept_fails_at: int | None = None):
        self.accepted: list[int] = []
        self._seed, self._mask_fails_at, self._accept_fails_at = seed, mask_fails_at, accept_fails_at

    def mask(self) -> np.ndarray:
        if len(self.accepted) == self._mask_fails_at:
            raise OSError("mask trouble")
        random = np.random.default_rng([self._seed, *self.accepted])
        allowed = random.random(VOCAB) < 0.2
        allowed[[0, 5, 6, 20]] = True  # what the grammars may insist on
        return pack_bits(allowed)

    def accept(self, token: int) -> None:
        assert unpack_bits(self.mask(), VOCAB)[token]
        self.accepted.append(token)
        if len(self.accepted) == self._accept_fails_at:
            raise OSError("accept trouble")


def restricted(request: Request, seed: int = 0, **faults) -> Request:
    return dataclasses.replace(request, constraint=partial(Whim, seed, **faults))


@pytest.fixture(scope="module")
def device(programs) -> Device:
    return Device(Poisoned(programs))


@pytest.fixture(scope="module")
def comparison(oracle) -> Comparison:
    return Comparison(oracle)


MIXED = [
    restricted(request(max_tokens=7, seed=1), 1),
    request("detect", picture=0, max_tokens=9, seed=2),
    restricted(request("reasoning", picture=1, max_tokens=9, seed=3), 2),
    request("text", picture=1, max_tokens=9, seed=4),
]


def compare(comparison: Comparison, sequences, cancelled=()) -> None:
    for index, sequence in enumerate(sequences):
        assert sequence.finish_reason is not None or index in cancelled
        comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)


def test_random_schedules_with_restricted_rows_give_what_the_oracle_gives(programs, device, comparison):
    loop, set_back = Loop(programs, device), 0
    for number in range(0, 300, EVERY):
        plan = schedule(number)
        choose = np.random.default_rng([7, number])
        arrivals = tuple(
            (tick, restricted(asked, int(choose.integers(100))) if choose.random() < 0.5 else asked)
            for tick, asked in plan.arrivals
        )
        sequences, scheduler = loop.run(dataclasses.replace(plan, arrivals=arrivals))
        compare(comparison, sequences, plan.cancels)
        set_back += scheduler.preemptions
    assert set_back > 0
    assert len(comparison.near_ties) <= max(1, comparison.compared // 1000), comparison.near_ties


def order(programs, device, depth: int) -> list[tuple[str, int]]:
    events: list[tuple[str, int]] = []
    sequences, _ = Loop(programs, device).run(
        Schedule(at_once(*MIXED), depth=depth, prefill_rows=3),
        on_event=lambda name, launch: events.append((name, launch.number)),
    )
    assert all(sequence.finish_reason for sequence in sequences)
    return events


def test_at_depth_2_forward_precedes_the_commit_before_it_and_sampling_follows(programs, device):
    events = order(programs, device, depth=2)
    sampled = [number for name, number in events if name == "sample"]
    assert len(sampled) > 3
    for number in sampled[1:]:
        launch, sample = events.index(("launch", number)), events.index(("sample", number))
        assert launch < events.index(("commit_begin", number - 1))
        assert events.index(("commit_end", number - 1)) < sample
        assert sample < events.index(("commit_begin", number))


def test_at_depth_1_nothing_overlaps(programs, device):
    for name, number in (events := order(programs, device, depth=1)):
        if name == "launch" and number:
            assert events.index(("commit_end", number - 1)) < events.index(("launch", number))


def test_a_batch_without_restricted_rows_is_not_split(programs, device, monkeypatch):
    monkeypatch.setattr(device, "forward", None)
    Loop(programs, device).run(Schedule(at_once(MIXED[1], MIXED[3])))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "faults", [{"mask_fails_at": 0}, {"mask_fails_at": 2}, {"accept_fails_at": 1}, {"accept_fails_at": 3}], ids=str
)
def test_a_constraint_that_raises_ends_its_own_request(programs, comparison, depth, faults):
    with Engine(with_engine(programs, depth=depth)) as engine:
        bad = engine.submit(restricted(request(max_tokens=12, temperature=0.0), 9, **faults))
        others = [engine.submit(asked) for asked in MIXED]
        with pytest.raises(OSError, match="trouble"):
            bad.future.result(PATIENCE)
        for submission in others:
            generation = submission.future.result(PATIENCE)
            comparison.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)


@pytest.mark.parametrize("method", ["forward", "sample", "fetch"])
def test_restricted_rows_survive_a_device_error(programs, comparison, monkeypatch, method):
    with Engine(with_engine(programs, depth=2)) as engine:
        Faults(monkeypatch, engine, method, {2})
        for submission in [engine.submit(asked) for asked in MIXED]:
            generation = submission.future.result(PATIENCE)
            comparison.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)


def test_a_constraint_that_cannot_be_made_is_the_callers_to_see(programs):
    def broken():
        raise ValueError("no such schema")

    with Engine(programs) as engine, pytest.raises(ValueError, match="no such schema"):
        engine.submit(dataclasses.replace(MIXED[0], constraint=broken))


def test_an_engine_without_masks_refuses_restricted_requests(fixed_programs):
    with Engine(fixed_programs) as engine, pytest.raises(ValueError, match="host_masks=True"):
        engine.submit(MIXED[0])
