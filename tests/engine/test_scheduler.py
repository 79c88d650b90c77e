"""Who runs next, and who gets rows and pages."""

from __future__ import annotations

import pytest

from jaxphoton.engine.launch import PrefillPlan, StepPlan
from tests.engine.desk import Desk
from tests.engine.rig import image, request

# In these tests a page holds 4 positions and an image prefix takes 2 pages (6 positions and a hole of 2).


def test_requests_are_admitted_in_the_order_of_arrival():
    desk = Desk(rows=4, prefill_rows=2)
    a, b, c, d = (desk.submit(request()) for _ in range(4))
    assert desk.prefill() == (a, b) and desk.prefill() == (c, d)


def test_more_than_fit_into_the_rows_stay_waiting():
    desk = Desk(rows=2)
    a, b, c = (desk.submit(request()) for _ in range(3))
    assert desk.prefill() == (a, b)
    assert desk.scheduler.plan(1) is not None and desk.scheduler.waiting == [c]
    desk.commit(a, b)
    desk.end(a)
    assert desk.prefill() == (c,) and {b.row, c.row} == {0, 1}


def test_prefill_comes_before_decoding():
    desk = Desk()
    a = desk.submit(request())
    desk.commit(*desk.prefill())
    b = desk.submit(request())
    assert desk.prefill() == (b,) and desk.step(1) == (a, b)


def test_every_running_sequence_is_in_every_step():
    desk = Desk()
    admitted = [desk.submit(request(max_tokens=9)) for _ in range(4)]
    desk.commit(*desk.prefill()), desk.commit(*desk.prefill())
    for _ in range(5):
        step = desk.step()
        assert step == tuple(admitted)
        desk.commit(*step)


def test_a_large_request_may_be_overtaken_but_only_so_often():
    desk = Desk(rows=8, pages=21, prefill_rows=1, bypass=3)
    holder = desk.submit(request(prompt=40))  # 11 of 20 pages
    desk.commit(*desk.prefill())
    large = desk.submit(request(prompt=40))
    small = [desk.submit(request(prompt=3, max_tokens=1)) for _ in range(6)]
    for expected in small[:3]:
        assert desk.prefill() == (expected,)
        desk.commit(expected), desk.end(expected)
    assert isinstance(desk.scheduler.plan(0), StepPlan) and large.bypassed == 3
    desk.end(holder)
    assert desk.prefill() == (large,) and desk.prefill() == (small[3],)


def test_one_prefill_of_several_does_not_overtake_more_often():
    desk = Desk(rows=8, pages=21, prefill_rows=4, bypass=2)
    desk.submit(request(prompt=40))
    desk.commit(*desk.prefill())
    large = desk.submit(request(prompt=40))
    small = [desk.submit(request(prompt=3)) for _ in range(4)]
    assert desk.prefill() == tuple(small[:2]) and large.bypassed == 2


def test_a_request_bigger_than_the_pool_is_refused_with_the_numbers_and_others_stay():
    desk = Desk(pages=7)
    fits = desk.submit(request(prompt=12, max_tokens=8))
    with pytest.raises(ValueError, match="needs 7 pages of the cache; there are 6"):
        desk.submit(request(prompt=16, max_tokens=9))
    assert desk.scheduler.waiting == [fits]
    desk.run()
    desk.check_answer(fits)


@pytest.mark.parametrize("picture", [None, image(1)])
def test_a_request_that_just_fits_runs_to_its_end(picture):
    # The last token is never fed: 14 positions behind the prefix, or 1 + 14 + 9 of text, take 6 pages in all.
    grammar, prompt = ("text", 14) if picture is None else ("text", 7)
    desk = Desk(pages=7, stop=0.0)
    sequence = desk.submit(request(grammar, prompt, picture, max_tokens=10))
    desk.run()
    desk.check_answer(sequence)
    assert len(sequence.tokens) == 10


def test_a_prompt_that_leaves_no_room_in_the_context_is_refused():
    desk = Desk()
    with pytest.raises(ValueError, match="64 positions and leaves no room"):
        desk.submit(request(prompt=63))
    assert desk.submit(request(prompt=62)).max_tokens == 1


def test_an_image_of_too_many_crops_is_refused():
    with pytest.raises(ValueError, match="7 crops; no vision program takes so many"):
        Desk().submit(request(picture=image(1, crops=7)))


def test_an_image_without_any_prompt_is_refused():
    # Nothing would be left to sample the first token from.
    with pytest.raises(ValueError, match="empty"):
        Desk().submit(request(prompt=0, picture=image(1)))


def test_images_of_one_prefill_fit_the_crop_budget():
    desk = Desk(vision=((2, 6),), prefill_rows=3)
    a, b = (desk.submit(request(picture=image(name, crops=4))) for name in (1, 2))
    c = desk.submit(request())
    d = desk.submit(request(picture=image(3, crops=2)))
    plan = desk.scheduler.plan(0)
    assert isinstance(plan, PrefillPlan) and (plan.sequences, plan.images) == ((a, c, d), (a, d))
    assert desk.prefill() == (b,)


def test_images_of_one_prefill_fit_the_largest_number_of_images():
    desk = Desk(vision=((1, 6),))
    a, b = (desk.submit(request(picture=image(name))) for name in (1, 2))
    assert desk.prefill() == (a,) and desk.prefill() == (b,)


def test_questions_about_one_image_are_counted_and_computed_once():
    desk = Desk(pages=21)
    a, b = (desk.submit(request(prompt=4, picture=image(1))) for _ in range(2))
    plan = desk.scheduler.plan(0)
    assert isinstance(plan, PrefillPlan) and (plan.sequences, plan.images) == ((a, b), (a,))
    assert a.prefix_pages == b.prefix_pages and set(a.pages).isdisjoint(b.pages)
    assert desk.allocator.free == 20 - 2 - 1 - 1


def test_a_later_question_about_an_image_skips_vision_and_prefix():
    desk = Desk()
    first = desk.submit(request(picture=image(1)))
    desk.commit(*desk.prefill())
    pages = list(first.prefix_pages)
    desk.end(first)
    second = desk.submit(request(picture=image(1)))
    plan = desk.scheduler.plan(0)
    assert plan == PrefillPlan((second,), ()) and second.prefix_pages == pages


def test_without_sharing_every_question_has_its_own_prefix_and_leaves_none():
    desk = Desk(share_prefixes=False)
    a, b = (desk.submit(request(picture=image(1))) for _ in range(2))
    plan = desk.scheduler.plan(0)
    assert isinstance(plan, PrefillPlan) and plan.images == (a, b)
    assert set(a.prefix_pages).isdisjoint(b.prefix_pages)
    desk.end(a), desk.end(b)
    assert len(desk.scheduler.prefixes) == 0 and desk.allocator.free == desk.allocator.usable


def test_admission_leaves_a_page_for_every_running_sequence():
    desk = Desk(pages=8, prefill_rows=1)
    a, b, c = (desk.submit(request(prompt=7)) for _ in range(3))  # 2 pages each, of 7
    desk.commit(*desk.prefill()), desk.commit(*desk.prefill())
    assert desk.step() == (a, b) and desk.scheduler.waiting == [c] and c.row is None


@pytest.mark.parametrize("picture", [None, image(1), image(2)])
def test_a_refused_admission_takes_nothing_and_evicts_nothing(picture):
    desk = Desk(pages=13)
    old = desk.submit(request(prompt=3, picture=image(1)))
    desk.commit(*desk.prefill()), desk.end(old)
    holder = desk.submit(request(prompt=23))
    desk.commit(*desk.prefill())
    waiting = desk.submit(request(prompt=27, picture=picture))
    assert desk.step() == (holder,)
    assert desk.scheduler.waiting == [waiting] and waiting.row is None and desk.allocator.free == 3
    assert old.prefix in desk.scheduler.prefixes and desk.scheduler.prefixes.users(old.prefix) == 0


def test_admission_evicts_an_unused_prefix_when_that_makes_room():
    desk = Desk(pages=8)
    old = desk.submit(request(prompt=3, picture=image(1)))
    desk.commit(*desk.prefill()), desk.end(old)
    sequence = desk.submit(request(prompt=25, max_tokens=2))
    assert desk.prefill() == (sequence,) and len(desk.scheduler.prefixes) == 0


def test_a_waiting_request_can_be_given_up():
    desk = Desk(rows=1)
    a, b, c = (desk.submit(request()) for _ in range(3))
    desk.commit(*desk.prefill())
    desk.end(b), desk.end(a)
    assert desk.prefill() == (c,) and not desk.scheduler.zombies


def test_rows_and_pages_go_when_the_last_reference_drops():
    desk = Desk()
    (a,) = [desk.submit(request(picture=image(1)))]
    desk.prefill(), desk.step(1)
    desk.end(a)
    assert a in desk.scheduler.zombies and a.row is not None and a.pages and desk.scheduler.has_work
    desk.commit(a)
    assert a.row is not None and desk.scheduler.prefixes.users(a.prefix) == 1
    desk.commit(a)
    assert a.row is None and not a.page_table and not desk.scheduler.has_work
    assert desk.scheduler.prefixes.users(a.prefix) == 0


def test_launches_never_exceed_the_limit_on_tokens_nor_two_in_flight():
    desk = Desk()
    two, many = desk.submit(request(max_tokens=2)), desk.submit(request(max_tokens=9))
    desk.prefill()
    assert desk.step(1) == (two, many) and desk.scheduler.plan(2) is None
    desk.commit(two, many)
    assert not two.wants_step and desk.step(1) == (many,)
