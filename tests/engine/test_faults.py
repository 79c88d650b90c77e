"""A device error costs a recomputation, not a request; two under the same request end it, and only it."""

from __future__ import annotations

import pytest

from jaxphoton.engine.engine import Engine
from jaxphoton.engine.errors import EngineError
from tests.engine.judge import Judge
from tests.engine.rig import check_clean
from tests.engine.tiny import request, with_engine

PATIENCE = 60.0

REQUESTS = [
    request(grammar, 3 + seed, seed % 4 if seed % 4 < 3 else None, seed=seed, temperature=0.7, max_tokens=10)
    for seed, grammar in enumerate(["text", "detect", "reasoning", "point"] * 3)
]


class Faults:
    """Makes calls of one of a device's methods fail, counted from 0."""

    def __init__(self, monkeypatch, engine: Engine, method: str, failing: set[int]):
        self.calls, self.failing = -1, failing
        self._original = getattr(engine.pipeline.device, method)
        monkeypatch.setattr(engine.pipeline.device, method, self)

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls in self.failing:
            raise RuntimeError("INTERNAL: injected")
        return self._original(*arguments)


@pytest.fixture(params=[1, 2], ids=["depth 1", "depth 2"])
def engine(programs, request):
    engine = Engine(with_engine(programs, depth=request.param, max_waiting=64))
    yield engine
    engine.shutdown(wait=False)
    check_clean(engine.scheduler)


@pytest.mark.parametrize("method", ["prefill", "step", "fetch"])
@pytest.mark.parametrize("call", [0, 1, 3])
def test_one_failure_loses_nothing(engine, oracle, monkeypatch, method, call):
    faults = Faults(monkeypatch, engine, method, {call})
    submissions = [engine.submit(r) for r in REQUESTS]
    judge = Judge(oracle)
    for submission in submissions:
        generation = submission.future.result(PATIENCE)
        judge.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)
    assert faults.calls > call
    assert not judge.near_ties


def test_two_failures_in_a_row_end_those_that_ran_and_no_others(engine, oracle, monkeypatch):
    Faults(monkeypatch, engine, "fetch", {2, 3})
    submissions = [engine.submit(r) for r in REQUESTS]
    judge, lost = Judge(oracle), 0
    for submission in submissions:
        error = submission.future.exception(PATIENCE)
        if error is None:
            generation = submission.future.result()
            judge.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)
        else:
            lost += 1
            assert isinstance(error, EngineError) and "failed twice" in str(error) and "injected" in str(error)
    assert 0 < lost <= engine.programs.engine.max_rows
    after = engine.submit(REQUESTS[0]).future.result(PATIENCE)
    judge.compare(REQUESTS[0], list(after.tokens), after.finish_reason)


def test_cancelling_between_failures_leaves_nothing_behind(engine, monkeypatch):
    Faults(monkeypatch, engine, "step", {1, 4, 9})
    submissions = [engine.submit(r) for r in REQUESTS * 2]
    for submission in submissions[::3]:
        engine.cancel(submission)
    assert engine.drain(PATIENCE)
    assert all(submission.future.done() for submission in submissions)
