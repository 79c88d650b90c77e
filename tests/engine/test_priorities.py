"""Priorities: who is urgent goes first, and nobody starves for it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxphoton.engine.launch import StepPlan
from jaxphoton.engine.request import Request, Sequence
from tests.engine.harness import Harness, image, request
from tests.engine.manual import ManualHarness


def urgent(priority: int, asked: Request | None = None) -> Request:
    return dataclasses.replace(asked or request(), priority=priority)


def served(harness: ManualHarness) -> Sequence:
    """Who is admitted next; it ends at once."""
    (sequence,) = harness.prefill()
    harness.commit(sequence), harness.end(sequence)
    return sequence


def test_higher_priorities_are_admitted_first_and_equal_ones_as_they_came():
    harness = ManualHarness(prefill_rows=1)
    sequences = [harness.submit(urgent(priority)) for priority in (0, 1, -1, 1, 0, 7)]
    assert [served(harness) for _ in sequences] == [sequences[i] for i in (5, 1, 3, 0, 4, 2)]


def test_one_prefill_takes_the_most_urgent_together():
    harness = ManualHarness(prefill_rows=2)
    low, high, middle = (harness.submit(urgent(priority)) for priority in (0, 2, 1))
    assert harness.prefill() == (high, middle) and harness.prefill() == (low,)


def test_nobody_who_runs_is_set_back_for_somebody_urgent():
    harness = ManualHarness(rows=1)
    low = harness.submit(urgent(0))
    harness.commit(*harness.prefill())
    high = harness.submit(urgent(9))
    assert harness.step() == (low,) and harness.scheduler.waiting == [high]


def test_the_oldest_is_overtaken_only_so_often():
    harness = ManualHarness(rows=1, bypass=3)
    low = [harness.submit(urgent(0)) for _ in range(2)]
    order = []
    for _ in range(9):
        harness.submit(urgent(1))
        order.append(served(harness))
    # The second counts from when it has become the oldest.
    assert [low.index(s) if s in low else None for s in order] == [None] * 3 + [0] + [None] * 3 + [1, None]


def test_a_backlog_of_low_priority_does_not_delay_who_is_urgent():
    harness = ManualHarness(rows=1, bypass=3)
    for _ in range(20):
        harness.submit(urgent(0))
    order = []
    for _ in range(40):
        harness.submit(urgent(1))
        order.append(served(harness).request.priority)
    assert order == [1, 1, 1, 0] * 10


def test_an_oldest_whose_turn_it_is_and_that_does_not_fit_blocks_who_is_urgent():
    harness = ManualHarness(rows=8, pages=21, prefill_rows=1, bypass=2)
    holder = harness.submit(request(prompt=40))  # 11 of 20 pages
    harness.commit(*harness.prefill())
    large = harness.submit(urgent(0, request(prompt=40)))
    high = [harness.submit(urgent(5, request(prompt=3, max_tokens=1))) for _ in range(3)]
    assert [served(harness) for _ in range(2)] == high[:2]
    assert isinstance(harness.scheduler.plan(0), StepPlan)
    harness.end(holder)
    assert served(harness) == large and served(harness) == high[2]


def test_somebody_urgent_that_does_not_fit_is_overtaken_only_so_often():
    harness = ManualHarness(rows=8, pages=21, prefill_rows=1, bypass=2)
    harness.submit(request(prompt=40))
    harness.commit(*harness.prefill())
    low = [harness.submit(urgent(0, request(prompt=3, max_tokens=1))) for _ in range(4)]
    high = harness.submit(urgent(5, request(prompt=40)))
    assert [served(harness) for _ in range(2)] == low[:2] and high.bypassed == 2
    assert isinstance(harness.scheduler.plan(0), StepPlan)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_priorities_everybody_gets_their_answer(seed, depth):
    random = np.random.default_rng(seed)
    harness = Harness(depth, pages=int(random.integers(24, 60)), bypass=3)
    pictures = [None, image(1), image(2)]
    sequences = []
    for i in range(40):
        asked = request("text", int(random.integers(1, 12)), pictures[random.integers(3)], seed=100 * seed + i)
        sequences.append(harness.submit(urgent(int(random.integers(-2, 3)), asked)))
        harness.tick(int(random.integers(3)))
    for sequence in sequences[::7]:
        harness.cancel(sequence)
    harness.run()
    for sequence in sequences:
        harness.check_answer(sequence)
    harness.check_clean()
