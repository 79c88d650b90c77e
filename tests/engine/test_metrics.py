"""Metrics add up: a request's parts to its total, the launches' counts to the event log."""

from __future__ import annotations

import itertools

import pytest

from jaxphoton.engine.engine import Engine
from jaxphoton.engine.metrics import LaunchMetrics, Totals
from tests.engine.test_constraints import restricted
from tests.engine.tiny import request, with_engine

PATIENCE = 300.0

REQUESTS = [
    request(grammar, 3 + seed, seed % 4 if seed % 4 < 3 else None, seed=seed, temperature=0.7, max_tokens=4 + seed)
    for seed, grammar in enumerate(["text", "detect", "reasoning", "point"] * 3)
]


class VirtualClock:
    """A second passes with every look at it."""

    def __init__(self):
        self._seconds = itertools.count()

    def __call__(self) -> float:
        return float(next(self._seconds))


@pytest.fixture(params=[1, 2], ids=["depth 1", "depth 2"])
def run(programs, request):
    """An engine that has answered REQUESTS and some restricted ones: (engine, submissions, events, launch metrics)."""
    events, launches = [], []
    with Engine(
        with_engine(programs, depth=request.param),
        on_event=lambda name, launch: events.append((name, launch.number, len(launch.owners))),
        clock=VirtualClock(),
        on_metrics=launches.append,
    ) as engine:
        submissions = [engine.submit(r) for r in [*REQUESTS, *(restricted(r, 3) for r in REQUESTS[::4])]]
        for submission in submissions:
            submission.future.result(PATIENCE)
    return engine, submissions, events, launches


def test_the_parts_of_a_request_sum_to_its_total(run):
    for submission in run[1]:
        metrics, generation = submission.metrics, submission.future.result()
        assert metrics.queue + metrics.prefill + metrics.decode == metrics.total
        assert min(metrics.queue, metrics.prefill, metrics.decode) >= 0 < metrics.total
        assert metrics.output_tokens == len(generation.tokens)
        assert metrics.input_tokens == submission.sequence.prompt_length


def test_shared_images_are_counted_as_cached(run):
    cached = [s.metrics.cached_tokens for s in run[1] if s.sequence.request.image is not None]
    # Three pictures: the first request about each computes its prefix of 10 positions, the others find it.
    assert sorted(set(cached)) == [0, 10] and cached.count(0) == 3
    assert all(s.metrics.cached_tokens == 0 for s in run[1] if s.sequence.request.image is None)


def test_launches_are_those_of_the_event_log(run):
    engine, _, events, launches = run
    committed = [(number, rows) for name, number, rows in events if name == "commit_end"]
    assert [(m.number, m.rows) for m in launches] == committed
    sampled = {number for name, number, _ in events if name == "sample"}
    assert {m.number for m in launches if m.sample > 0} == sampled and sampled
    assert all(min(m.plan, m.launch, m.wait, m.commit) > 0 for m in launches)
    tokens = sum(m.rows - m.zombies for m in launches)
    assert tokens == sum(s.metrics.output_tokens for s in run[1])


def test_the_snapshot_sums_the_launches_up(run):
    engine, submissions, _, launches = run
    snapshot, totals = engine.metrics(), Totals()
    for launch in launches:
        totals.add(launch)
    assert snapshot.launches == totals
    assert (totals.prefills, totals.steps) == tuple(
        sum(m.kind == kind for m in launches) for kind in ("prefill", "step")
    )
    assert snapshot.outcomes.finished == len(submissions) and snapshot.outcomes.failed == 0
    assert (snapshot.waiting, snapshot.running) == (0, 0)
    # What is held when nobody runs is the prefix cache: three prefixes of three pages.
    assert (snapshot.prefixes, snapshot.pages_held) == (3, 9)


@pytest.mark.parametrize("depth", [1, 2])
def test_the_launch_that_ends_a_request_is_told_of_before_its_result_is_there(programs, depth):
    launches: list[LaunchMetrics] = []
    told, generated = [], []
    with Engine(with_engine(programs, depth=depth), on_metrics=launches.append) as engine:
        for each in REQUESTS:
            done = engine.submit(each).future
            done.add_done_callback(lambda _: told.append(sum(m.rows - m.zombies for m in launches)))
            generated.append(len(done.result(PATIENCE).tokens))
            assert engine.drain(PATIENCE)
            launches.clear()
    assert told == generated


def test_an_observer_that_raises_is_left_alone(programs, caplog):
    seen: list[LaunchMetrics] = []

    def observe(launch: LaunchMetrics) -> None:
        seen.append(launch)
        raise OSError("observer trouble")

    with Engine(programs, on_metrics=observe) as engine:
        engine.submit(REQUESTS[0]).future.result(PATIENCE)
    assert len(seen) == 1 and "observer trouble" in caplog.text


def test_cancelled_requests_are_counted_and_measured(programs):
    with Engine(programs) as engine:
        submissions = [engine.submit(r) for r in REQUESTS]
        for submission in submissions:
            engine.cancel(submission)
        assert engine.drain(PATIENCE)
        outcomes = engine.metrics().outcomes
        assert outcomes.cancelled + outcomes.finished == len(REQUESTS)
        assert all(submission.metrics is not None for submission in submissions)
