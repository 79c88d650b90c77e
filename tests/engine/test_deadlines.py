"""Deadlines on a virtual clock: a request ends as if it had been cancelled, and says why."""

from __future__ import annotations

import dataclasses
import math
import threading

import pytest

from jaxphoton.engine.engine import Engine, Submission
from jaxphoton.engine.request import Request
from jaxphoton.requests.errors import DeadlineExceeded
from jaxphoton.requests.tokens import Generation
from tests.engine.comparison import Comparison
from tests.engine.harness import check_clean
from tests.engine.tiny import request, with_engine

PATIENCE = 300.0  # seconds after which a test fails; none waits so long


class Clock:
    """Stands still until somebody sets it; counts how often it is read."""

    def __init__(self):
        self.now, self.reads = 0.0, 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


class Bench:
    """An engine, its clock, and what is checked at the end."""

    def __init__(self, programs, depth: int):
        self.clock = Clock()
        self.engine = Engine(with_engine(programs, depth=depth, max_waiting=100), self._event, self.clock)
        self.per_commit = 0.0

    def submit(self, asked: Request, deadline: float | None, on_token=None) -> Submission:
        return self.engine.submit(dataclasses.replace(asked, deadline=deadline), on_token)

    def at_token(self, number: int, now: float):
        """A listener that sets the clock at its request's token of that number, counted from 1; and what it heard."""
        heard = []

        def listen(token, finish) -> None:
            heard.append(token)
            if len(heard) == number:
                self.clock.now = now

        return listen, heard

    def close(self) -> None:
        assert self.engine.drain(PATIENCE)
        self.engine.shutdown()
        check_clean(self.engine.scheduler)
        assert not self.engine._submissions._timed and not self.engine._submissions._live

    def _event(self, name: str, launch) -> None:
        if name == "commit_end":
            self.clock.now += self.per_commit


@pytest.fixture(params=[1, 2], ids=["depth 1", "depth 2"])
def bench(programs, request):
    bench = Bench(programs, request.param)
    yield bench
    bench.close()


def long(seed: int = 1) -> Request:
    return request(max_tokens=60, temperature=0.0, seed=seed)


def result(submission: Submission) -> Generation:
    return submission.future.result(PATIENCE)


def test_a_running_request_ends_before_its_next_token(bench):
    listen, heard = bench.at_token(3, now=10.0)
    submission = bench.submit(long(), 10.0, listen)
    other = bench.submit(request(seed=2), None)
    with pytest.raises(DeadlineExceeded, match="the deadline passed while the request ran"):
        result(submission)
    assert len(heard) == len(submission.sequence.tokens) == 3 and result(other).tokens


def test_its_row_and_pages_stay_until_the_last_reference_drops(bench):
    seen, ready = [], threading.Event()
    listen, _ = bench.at_token(3, now=10.0)

    def begin(token, finish) -> None:
        assert ready.wait(PATIENCE)
        listen(token, finish)

    def note(_) -> None:  # on the engine's thread, when the deadline has passed
        sequence = submission.sequence
        seen.append((sequence.inflight_refs, sequence in bench.engine.scheduler.zombies, sequence.row is not None))

    submission = bench.submit(long(), 10.0, begin)
    submission.future.add_done_callback(note)
    ready.set()
    with pytest.raises(DeadlineExceeded):
        result(submission)
    bench.close()
    assert seen == [(1, True, True) if bench.engine._config.depth == 2 else (0, False, False)]
    assert submission.sequence.row is None and not submission.sequence.page_table


def test_a_waiting_request_ends_without_having_run(bench):
    listen, _ = bench.at_token(2, now=10.0)
    running = [bench.submit(long(), 10.5, None if i else listen) for i in range(8)]
    waiting = [bench.submit(request(seed=i), deadline) for i, deadline in enumerate([9.0, 11.0, None])]
    with pytest.raises(DeadlineExceeded, match="the deadline passed while the request waited"):
        result(waiting[0])
    assert not waiting[0].sequence.tokens
    assert all(result(submission).tokens for submission in (*running, *waiting[1:]))


def test_a_deadline_that_has_passed_already_ends_the_request_at_once(bench):
    late = [bench.submit(long(), deadline) for deadline in (0.0, -5.0, -math.inf)]
    for submission in late:
        with pytest.raises(DeadlineExceeded):
            result(submission)
        assert not submission.sequence.tokens


def test_a_request_in_time_is_not_disturbed(bench):
    submissions = [bench.submit(request(seed=i), deadline) for i, deadline in enumerate([5.0, 5.0, math.inf])]
    assert all(result(submission).tokens for submission in submissions)
    assert bench.engine.drain(PATIENCE)
    bench.clock.now = 6.0
    assert result(bench.submit(request(seed=4), None)).tokens


def test_a_cancelled_request_has_no_deadline_any_more(bench):
    reached, ready = threading.Event(), threading.Event()

    def on_token(token, finish) -> None:
        reached.set()
        ready.wait(PATIENCE)

    submission = bench.submit(long(), 5.0, on_token)
    assert reached.wait(PATIENCE)
    bench.engine.cancel(submission)
    ready.set()
    assert bench.engine.drain(PATIENCE) and submission.future.cancelled() and not bench.engine._submissions._timed
    bench.clock.now = 6.0
    assert result(bench.submit(request(), None)).tokens


def test_without_deadlines_nobody_looks_at_the_clock_for_them(bench):
    assert result(bench.submit(request(), None)).tokens and bench.engine.drain(PATIENCE)
    reads = bench.clock.reads
    bench.engine._submissions.expire()
    assert bench.clock.reads == reads


def test_one_request_may_be_submitted_twice(bench):
    asked = dataclasses.replace(request(), deadline=5.0)
    submissions = [bench.engine.submit(asked) for _ in range(2)]
    assert len({result(submission).tokens for submission in submissions}) == 1


def test_a_deadline_must_be_a_number_and_a_priority_an_int(bench):
    with pytest.raises(ValueError, match="deadline is not a number"):
        bench.submit(request(), math.nan)
    for wrong in ("high", 0.5):
        with pytest.raises(TypeError, match="priority must be an int"):
            bench.engine.submit(dataclasses.replace(request(), priority=wrong))


def test_many_deadlines_leave_the_others_right_and_nothing_behind(bench, oracle):
    bench.per_commit = 1.0
    submissions = [
        bench.submit(
            request("text" if i % 3 else "detect", 3 + i % 5, i % 4 if i % 4 < 3 else None, max_tokens=12, seed=i),
            None if i % 5 == 0 else 3.0 + 7 * i % 40,
        )
        for i in range(40)
    ]
    comparison, late = Comparison(oracle), 0
    for submission in submissions:
        sequence = submission.sequence
        try:
            generation = result(submission)
        except DeadlineExceeded:
            late += 1
            comparison.compare(sequence.request, sequence.tokens, None)
        else:
            comparison.compare(sequence.request, list(generation.tokens), generation.finish_reason)
    assert 0 < late < len(submissions) and comparison.compared == 40 and len(comparison.near_ties) <= 1
