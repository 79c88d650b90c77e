"""With fixed shapes a request's result is the same to the last bit, whatever else runs and however deep."""

from __future__ import annotations

import struct

import pytest

from jaxphoton.engine.request import Request, Sequence
from tests.engine.tiny import Loop, Schedule, at_once, request

pytestmark = pytest.mark.smoke

REQUESTS = [
    request("text", 5, seed=1, max_tokens=20),
    request("detect", 9, 0, seed=6, temperature=1.5, max_tokens=20),
    request("point", 3, 0, seed=34, temperature=1.5, max_tokens=20),
    request("reasoning", 30, 2, seed=4, max_tokens=20),
    request("text", 22, 1, seed=5, temperature=0.0, max_tokens=20),
    request("text", 1, seed=6, temperature=1.5, top_p=0.4, max_tokens=20),
    request("detect", 4, 1, seed=58, temperature=1.5, top_p=0.8, max_objects=2, max_tokens=20),
    request("reasoning", 17, 2, seed=8, temperature=1.5, max_tokens=3),
]


def bits(sequence: Sequence) -> list:
    return [(t.id, t.bins, t.value, struct.pack("<d", t.logprob)) for t in sequence.tokens] + [sequence.finish_reason]


@pytest.fixture(scope="module")
def alone(fixed_programs) -> dict[Request, list]:
    """Each request by itself, blocking."""
    loop = Loop(fixed_programs)
    return {asked: bits(loop.run(Schedule(((0, asked),), depth=1, rows=4))[0][0]) for asked in REQUESTS}


STAGGERED = tuple((2 * i % 9, asked) for i, asked in enumerate(REQUESTS))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    ("arrivals", "rows"),
    [
        (at_once(*REQUESTS), 4),
        (at_once(*reversed(REQUESTS)), 4),
        (at_once(*REQUESTS), 3),
        (STAGGERED, 4),
        (STAGGERED, 2),
    ],
    ids=["together", "reversed", "three rows", "staggered", "staggered in two rows"],
)
def test_company_order_and_depth_change_no_bit(fixed_programs, alone, arrivals, rows, depth):
    sequences, scheduler = Loop(fixed_programs).run(Schedule(arrivals, depth=depth, rows=rows))
    assert [bits(sequence) for sequence in sequences] == [alone[asked] for _, asked in arrivals]
    assert scheduler.preemptions == 0


def test_the_requests_are_worth_comparing(alone):
    tokens = [len(result) - 1 for result in alone.values()]
    assert sum(tokens) > 60 and sum(length > 10 for length in tokens) >= 4
    assert {result[-1] for result in alone.values()} == {"stop", "length"}
    assert any(bins for result in alone.values() for _, bins, *_ in result[:-1])
