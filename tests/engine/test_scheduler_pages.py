"""Pages on demand: growth, eviction, and the setting back of the youngest, in this order."""

from __future__ import annotations

from jaxphoton.engine.launch import Drain
from jaxphoton.engine.request import Sequence
from tests.engine.harness import Harness, image, request
from tests.engine.manual import ManualHarness

# As in test_scheduler, a page holds 4 positions and an image prefix takes 2 pages.


def test_a_sequence_grows_by_one_page_when_its_next_position_needs_it():
    harness = ManualHarness(stop=0.0)
    sequence = harness.submit(request(prompt=5, max_tokens=12))  # with BOS, 6 positions
    harness.commit(*harness.prefill())
    held = [len(sequence.pages)]
    while sequence.wants_step:
        step = harness.step()
        held.append(len(sequence.pages))
        harness.commit(*step)
    assert held == [2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5]


def two_in_a_full_pool(**limits) -> tuple[ManualHarness, Sequence, Sequence]:
    """Two sequences that hold all 8 pages between them and both need a page for their next step."""
    harness = ManualHarness(pages=9, stop=0.0, prefill_rows=1, **limits)
    a, b = (harness.submit(request(prompt=7, max_tokens=20)) for _ in range(2))
    harness.commit(*harness.prefill()), harness.commit(*harness.prefill())
    for _ in range(8):
        harness.commit(*harness.step())
    assert harness.allocator.free == 0 and len(a.pages) == len(b.pages) == 4
    return harness, a, b


def test_growth_evicts_unused_prefixes_before_anything_else():
    harness = ManualHarness(pages=7, stop=0.0)
    old = harness.submit(request(prompt=3, picture=image(1), max_tokens=1))
    harness.commit(*harness.prefill()), harness.end(old)
    sequence = harness.submit(request(prompt=15, max_tokens=9))
    harness.commit(*harness.prefill())
    assert harness.allocator.free == 0 and harness.scheduler.prefixes.evictable == 2
    assert harness.step(in_flight=1) == (sequence,) and len(harness.scheduler.prefixes) == 0


def test_what_is_in_flight_is_committed_before_anybody_is_set_back():
    harness, a, b = two_in_a_full_pool()
    assert harness.scheduler.plan(1) == Drain() and harness.scheduler.preemptions == 0
    assert harness.scheduler.running == [a, b]


def test_the_youngest_is_set_back_and_waits_in_its_old_place():
    harness, a, b = two_in_a_full_pool()
    later = harness.submit(request())
    assert harness.step() == (a,)
    assert harness.scheduler.waiting == [b, later] and harness.scheduler.preemptions == 1
    assert b.row is None and b.page_table == [] and len(b.tokens) == 9


def test_a_sequence_that_was_set_back_is_prefilled_with_its_committed_tokens():
    harness, a, b = two_in_a_full_pool()
    harness.commit(*harness.step())
    harness.end(a)
    assert harness.prefill() == (b,) and b.prefill_length == 8 + 9 and len(b.pages) == 5


def test_sequences_that_were_set_back_end_with_the_tokens_they_would_have_had():
    harness = Harness(pages=12, stop=0.0)
    sequences = [
        harness.submit(request(g, prompt=6, max_tokens=22, seed=i)) for i, g in enumerate(["text", "detect"] * 2)
    ]
    harness.run()
    assert harness.scheduler.preemptions > 0
    for sequence in sequences:
        harness.check_answer(sequence)
    harness.check_clean()


def test_with_the_pool_dry_a_tick_tries_few_of_those_who_wait(monkeypatch):
    harness, tried = ManualHarness(pages=12, stop=0.0, rows=3), []
    make_room = harness.scheduler._make_room
    monkeypatch.setattr(harness.scheduler, "_make_room", lambda pages: tried.append(pages) or make_room(pages))
    running = harness.submit(request(prompt=30, max_tokens=9))
    harness.prefill()
    harness.commit(running)
    for _ in range(500):
        harness.submit(request(prompt=30, max_tokens=9))
    tried.clear()
    assert harness.step() == (running,)
    assert 0 < len(tried) <= harness.limits.bypass + harness.limits.prefill_rows + 1
