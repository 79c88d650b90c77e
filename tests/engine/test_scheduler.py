"""Who runs next, and who gets rows and pages."""

from __future__ import annotations

import pytest

from jaxphoton.engine.launch import PrefillPlan, StepPlan, parts_of
from tests.engine.harness import image, request
from tests.engine.manual import ManualHarness

# In these tests a page holds 4 positions and an image prefix takes 2 pages (6 positions and a padding gap of 2).


def test_requests_are_admitted_in_the_order_of_arrival():
    harness = ManualHarness(rows=4, prefill_rows=2)
    a, b, c, d = (harness.submit(request()) for _ in range(4))
    assert harness.prefill() == (a, b) and harness.prefill() == (c, d)


def test_more_than_fit_into_the_rows_stay_waiting():
    harness = ManualHarness(rows=2)
    a, b, c = (harness.submit(request()) for _ in range(3))
    assert harness.prefill() == (a, b)
    assert harness.scheduler.plan(1) is not None and harness.scheduler.waiting == [c]
    harness.commit(a, b)
    harness.end(a)
    assert harness.prefill() == (c,) and {b.row, c.row} == {0, 1}


def test_prefill_comes_before_decoding():
    harness = ManualHarness()
    a = harness.submit(request())
    harness.commit(*harness.prefill())
    b = harness.submit(request())
    assert harness.prefill() == (b,) and harness.step(1) == (a, b)


def test_every_running_sequence_is_in_every_step():
    harness = ManualHarness()
    admitted = [harness.submit(request(max_tokens=9)) for _ in range(4)]
    harness.commit(*harness.prefill()), harness.commit(*harness.prefill())
    for _ in range(5):
        step = harness.step()
        assert step == tuple(admitted)
        harness.commit(*step)


def test_a_large_request_may_be_overtaken_but_only_so_often():
    harness = ManualHarness(rows=8, pages=21, prefill_rows=1, bypass=3)
    holder = harness.submit(request(prompt=40))  # 11 of 20 pages
    harness.commit(*harness.prefill())
    large = harness.submit(request(prompt=40))
    small = [harness.submit(request(prompt=3, max_tokens=1)) for _ in range(6)]
    for expected in small[:3]:
        assert harness.prefill() == (expected,)
        harness.commit(expected), harness.end(expected)
    assert isinstance(harness.scheduler.plan(0), StepPlan) and large.bypassed == 3
    harness.end(holder)
    assert harness.prefill() == (large,) and harness.prefill() == (small[3],)


def test_one_prefill_of_several_does_not_overtake_more_often():
    harness = ManualHarness(rows=8, pages=21, prefill_rows=4, bypass=2)
    harness.submit(request(prompt=40))
    harness.commit(*harness.prefill())
    large = harness.submit(request(prompt=40))
    small = [harness.submit(request(prompt=3)) for _ in range(4)]
    assert harness.prefill() == tuple(small[:2]) and large.bypassed == 2


def test_one_with_further_images_is_prefilled_alone_and_in_its_turn():
    harness = ManualHarness(rows=8, prefill_rows=4)
    a, b = harness.submit(request()), harness.submit(request())
    several = harness.submit(request(picture=image(1), further={0: image(2), 3: image(1)}))
    c = harness.submit(request(picture=image(1)))
    assert harness.prefill() == (a, b) and several.bypassed == 0
    plan = harness.scheduler.plan(0)
    assert isinstance(plan, PrefillPlan) and plan.sequences == plan.images == (several,) and plan.pictures == 3
    assert list(parts_of(plan)) == [0, slice(5, 8), 1, slice(13, None)]
    assert harness.prefill() == (c,) and c.cached_tokens == 6


def test_further_images_need_room_of_their_own():
    harness = ManualHarness(pages=9, vision=((2, 2),))
    with pytest.raises(ValueError, match="needs 10 pages of the cache; there are 8"):
        harness.submit(request(prompt=7, picture=image(1), further={1: image(1), 2: image(1), 3: image(2)}))
    with pytest.raises(ValueError, match="3 crops; no vision program"):
        harness.submit(request(further={1: image(1, crops=3)}))


def test_a_request_bigger_than_the_pool_is_refused_with_the_numbers_and_others_stay():
    harness = ManualHarness(pages=7)
    fits = harness.submit(request(prompt=12, max_tokens=8))
    with pytest.raises(ValueError, match="needs 7 pages of the cache; there are 6"):
        harness.submit(request(prompt=16, max_tokens=9))
    assert harness.scheduler.waiting == [fits]
    harness.run()
    harness.check_answer(fits)


@pytest.mark.parametrize("picture", [None, image(1)])
def test_a_request_that_just_fits_runs_to_its_end(picture):
    # The last token is never fed: 14 positions behind the prefix, or 1 + 14 + 9 of text, take 6 pages in all.
    grammar, prompt = ("text", 14) if picture is None else ("text", 7)
    harness = ManualHarness(pages=7, stop=0.0)
    sequence = harness.submit(request(grammar, prompt, picture, max_tokens=10))
    harness.run()
    harness.check_answer(sequence)
    assert len(sequence.tokens) == 10


def test_a_prompt_that_leaves_no_room_in_the_context_is_refused():
    harness = ManualHarness()
    with pytest.raises(ValueError, match="64 positions and leaves no room"):
        harness.submit(request(prompt=63))
    assert harness.submit(request(prompt=62)).max_tokens == 1


def test_an_image_of_too_many_crops_is_refused():
    with pytest.raises(ValueError, match="7 crops; no vision program takes so many"):
        ManualHarness().submit(request(picture=image(1, crops=7)))


def test_an_image_without_any_prompt_is_refused():
    # Nothing would be left to sample the first token from.
    with pytest.raises(ValueError, match="empty"):
        ManualHarness().submit(request(prompt=0, picture=image(1)))


def test_images_of_one_prefill_fit_the_crop_budget():
    harness = ManualHarness(vision=((2, 6),), prefill_rows=3)
    a, b = (harness.submit(request(picture=image(name, crops=4))) for name in (1, 2))
    c = harness.submit(request())
    d = harness.submit(request(picture=image(3, crops=2)))
    plan = harness.scheduler.plan(0)
    assert isinstance(plan, PrefillPlan) and (plan.sequences, plan.images) == ((a, c, d), (a, d))
    assert harness.prefill() == (b,)


def test_images_of_one_prefill_fit_the_largest_number_of_images():
    harness = ManualHarness(vision=((1, 6),))
    a, b = (harness.submit(request(picture=image(name))) for name in (1, 2))
    assert harness.prefill() == (a,) and harness.prefill() == (b,)


def test_questions_about_one_image_are_counted_and_computed_once():
    harness = ManualHarness(pages=21)
    a, b = (harness.submit(request(prompt=4, picture=image(1))) for _ in range(2))
    plan = harness.scheduler.plan(0)
    assert isinstance(plan, PrefillPlan) and (plan.sequences, plan.images) == ((a, b), (a,))
    assert a.prefix_pages == b.prefix_pages and set(a.pages).isdisjoint(b.pages)
    assert harness.allocator.free == 20 - 2 - 1 - 1


def test_a_later_question_about_an_image_skips_vision_and_prefix():
    harness = ManualHarness()
    first = harness.submit(request(picture=image(1)))
    harness.commit(*harness.prefill())
    pages = list(first.prefix_pages)
    harness.end(first)
    second = harness.submit(request(picture=image(1)))
    plan = harness.scheduler.plan(0)
    assert plan == PrefillPlan((second,), ()) and second.prefix_pages == pages


def test_without_sharing_every_question_has_its_own_prefix_and_leaves_none():
    harness = ManualHarness(share_prefixes=False)
    a, b = (harness.submit(request(picture=image(1))) for _ in range(2))
    plan = harness.scheduler.plan(0)
    assert isinstance(plan, PrefillPlan) and plan.images == (a, b)
    assert set(a.prefix_pages).isdisjoint(b.prefix_pages)
    harness.end(a), harness.end(b)
    assert len(harness.scheduler.prefixes) == 0 and harness.allocator.free == harness.allocator.usable


def test_admission_leaves_a_page_for_every_running_sequence():
    harness = ManualHarness(pages=8, prefill_rows=1)
    a, b, c = (harness.submit(request(prompt=7)) for _ in range(3))  # 2 pages each, of 7
    harness.commit(*harness.prefill()), harness.commit(*harness.prefill())
    assert harness.step() == (a, b) and harness.scheduler.waiting == [c] and c.row is None


@pytest.mark.parametrize("picture", [None, image(1), image(2)])
def test_a_refused_admission_takes_nothing_and_evicts_nothing(picture):
    harness = ManualHarness(pages=13)
    old = harness.submit(request(prompt=3, picture=image(1)))
    harness.commit(*harness.prefill()), harness.end(old)
    holder = harness.submit(request(prompt=23))
    harness.commit(*harness.prefill())
    waiting = harness.submit(request(prompt=27, picture=picture))
    assert harness.step() == (holder,)
    assert harness.scheduler.waiting == [waiting] and waiting.row is None and harness.allocator.free == 3
    assert old.prefix in harness.scheduler.prefixes and harness.scheduler.prefixes.users(old.prefix) == 0


def test_admission_evicts_an_unused_prefix_when_that_makes_room():
    harness = ManualHarness(pages=8)
    old = harness.submit(request(prompt=3, picture=image(1)))
    harness.commit(*harness.prefill()), harness.end(old)
    sequence = harness.submit(request(prompt=25, max_tokens=2))
    assert harness.prefill() == (sequence,) and len(harness.scheduler.prefixes) == 0


def test_a_waiting_request_can_be_given_up():
    harness = ManualHarness(rows=1)
    a, b, c = (harness.submit(request()) for _ in range(3))
    harness.commit(*harness.prefill())
    harness.end(b), harness.end(a)
    assert harness.prefill() == (c,) and not harness.scheduler.zombies


def test_rows_and_pages_go_when_the_last_reference_drops():
    harness = ManualHarness()
    (a,) = [harness.submit(request(picture=image(1)))]
    harness.prefill(), harness.step(1)
    harness.end(a)
    assert a in harness.scheduler.zombies and a.row is not None and a.pages and harness.scheduler.has_work
    harness.commit(a)
    assert a.row is not None and harness.scheduler.prefixes.users(a.prefix) == 1
    harness.commit(a)
    assert a.row is None and not a.page_table and not harness.scheduler.has_work
    assert harness.scheduler.prefixes.users(a.prefix) == 0


def test_launches_never_exceed_the_limit_on_tokens_nor_two_in_flight():
    harness = ManualHarness()
    two, many = harness.submit(request(max_tokens=2)), harness.submit(request(max_tokens=9))
    harness.prefill()
    assert harness.step(1) == (two, many) and harness.scheduler.plan(2) is None
    harness.commit(two, many)
    assert not two.wants_step and harness.step(1) == (many,)
