"""Pages on demand: growth, eviction, and the setting back of the youngest, in this order."""

from __future__ import annotations

from jaxphoton.engine.launch import Drain
from jaxphoton.engine.request import Sequence
from tests.engine.desk import Desk
from tests.engine.rig import Rig, image, request

# As in test_scheduler, a page holds 4 positions and an image prefix takes 2 pages.


def test_a_sequence_grows_by_one_page_when_its_next_position_needs_it():
    desk = Desk(stop=0.0)
    sequence = desk.submit(request(prompt=5, max_tokens=12))  # with BOS, 6 positions
    desk.commit(*desk.prefill())
    held = [len(sequence.pages)]
    while sequence.wants_step:
        step = desk.step()
        held.append(len(sequence.pages))
        desk.commit(*step)
    assert held == [2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5]


def two_in_a_full_pool(**limits) -> tuple[Desk, Sequence, Sequence]:
    """Two sequences that hold all 8 pages between them and both need a page for their next step."""
    desk = Desk(pages=9, stop=0.0, prefill_rows=1, **limits)
    a, b = (desk.submit(request(prompt=7, max_tokens=20)) for _ in range(2))
    desk.commit(*desk.prefill()), desk.commit(*desk.prefill())
    for _ in range(8):
        desk.commit(*desk.step())
    assert desk.allocator.free == 0 and len(a.pages) == len(b.pages) == 4
    return desk, a, b


def test_growth_evicts_unused_prefixes_before_anything_else():
    desk = Desk(pages=7, stop=0.0)
    old = desk.submit(request(prompt=3, picture=image(1), max_tokens=1))
    desk.commit(*desk.prefill()), desk.end(old)
    sequence = desk.submit(request(prompt=15, max_tokens=9))
    desk.commit(*desk.prefill())
    assert desk.allocator.free == 0 and desk.scheduler.prefixes.evictable == 2
    assert desk.step(in_flight=1) == (sequence,) and len(desk.scheduler.prefixes) == 0


def test_what_is_in_flight_is_committed_before_anybody_is_set_back():
    desk, a, b = two_in_a_full_pool()
    assert desk.scheduler.plan(1) == Drain() and desk.scheduler.preemptions == 0
    assert desk.scheduler.running == [a, b]


def test_the_youngest_is_set_back_and_waits_in_its_old_place():
    desk, a, b = two_in_a_full_pool()
    later = desk.submit(request())
    assert desk.step() == (a,)
    assert desk.scheduler.waiting == [b, later] and desk.scheduler.preemptions == 1
    assert b.row is None and b.page_table == [] and len(b.tokens) == 9


def test_a_sequence_that_was_set_back_is_prefilled_with_its_committed_tokens():
    desk, a, b = two_in_a_full_pool()
    desk.commit(*desk.step())
    desk.end(a)
    assert desk.prefill() == (b,) and b.prefill_length == 8 + 9 and len(b.pages) == 5


def test_sequences_that_were_set_back_end_with_the_tokens_they_would_have_had():
    rig = Rig(pages=12, stop=0.0)
    sequences = [rig.submit(request(g, prompt=6, max_tokens=22, seed=i)) for i, g in enumerate(["text", "detect"] * 2)]
    rig.run()
    assert rig.scheduler.preemptions > 0
    for sequence in sequences:
        rig.check_answer(sequence)
    rig.check_clean()


def test_with_the_pool_dry_a_tick_tries_few_of_those_who_wait(monkeypatch):
    desk, tried = Desk(pages=12, stop=0.0, rows=3), []
    make_room = desk.scheduler._make_room
    monkeypatch.setattr(desk.scheduler, "_make_room", lambda pages: tried.append(pages) or make_room(pages))
    running = desk.submit(request(prompt=30, max_tokens=9))
    desk.prefill()
    desk.commit(running)
    for _ in range(500):
        desk.submit(request(prompt=30, max_tokens=9))
    tried.clear()
    assert desk.step() == (running,)
    assert 0 < len(tried) <= desk.limits.bypass + desk.limits.prefill_rows + 1
