"""The two slots of the pipeline: every transition, and every refusal."""

from __future__ import annotations

import pytest

from jaxphoton.engine.slots import DecodeSlot, SlotRing

pytestmark = pytest.mark.smoke


def launch(ring: SlotRing, name: object = "launch") -> DecodeSlot:
    slot = ring.free_slot()
    assert slot is not None
    ring.launched(slot, name, f"control of {name}", f"output of {name}")
    return slot


def commit(ring: SlotRing) -> object:
    name = ring.begin_commit().launch
    ring.end_commit()
    return name


def free_index(ring: SlotRing) -> int | None:
    slot = ring.free_slot()
    return None if slot is None else slot.index


def test_a_new_ring_is_empty_and_both_slots_are_free():
    ring = SlotRing()
    assert ring.in_flight == 0 and ring.is_empty and ring.oldest() is None
    assert launch(ring).index == 0 and launch(ring).index == 1


@pytest.mark.parametrize("depth", [-1, 0, 3])
def test_only_one_or_two_launches_may_be_under_way(depth):
    with pytest.raises(ValueError, match=f"must be 1 .* or 2 .* got {depth}"):
        SlotRing(depth)


def test_depth_one_has_one_slot():
    ring = SlotRing(1)
    assert launch(ring).index == 0 and ring.free_slot() is None
    ring.begin_commit()
    assert ring.free_slot() is None
    ring.end_commit()
    assert free_index(ring) == 0


def test_the_lowest_free_slot_is_taken():
    ring = SlotRing()
    assert free_index(ring) == 0
    launch(ring)
    assert free_index(ring) == 1  # slot 0 launched
    ring.begin_commit()
    assert free_index(ring) == 1  # slot 0 committing
    launch(ring)
    assert free_index(ring) is None  # both busy
    ring.end_commit()
    assert free_index(ring) == 0  # slot 1 busy


def test_nothing_can_be_launched_with_both_slots_busy():
    ring = SlotRing()
    launch(ring), launch(ring)
    assert ring.free_slot() is None


def test_a_slot_is_free_only_after_its_commit_has_ended():
    ring = SlotRing()
    slot = launch(ring)
    assert ring.begin_commit() is slot and free_index(ring) == 1
    ring.end_commit()
    assert ring.free_slot() is slot


def test_a_slot_keeps_control_and_output_until_its_commit_has_ended():
    ring = SlotRing()
    slot = launch(ring, "a")
    ring.begin_commit()
    assert (slot.launch, slot.control, slot.output) == ("a", "control of a", "output of a")
    ring.end_commit()
    assert (slot.launch, slot.control, slot.output) == (None, None, None)


def test_a_second_commit_cannot_begin_before_the_first_has_ended():
    ring = SlotRing()
    launch(ring), launch(ring)
    ring.begin_commit()
    with pytest.raises(RuntimeError, match="under way already"):
        ring.begin_commit()


def test_a_commit_cannot_end_without_having_begun():
    ring = SlotRing()
    launch(ring)
    with pytest.raises(RuntimeError, match="no commit is under way"):
        ring.end_commit()


def test_an_empty_ring_has_nothing_to_commit():
    ring = SlotRing()
    assert ring.oldest() is None
    with pytest.raises(RuntimeError, match="nothing is in flight"):
        ring.begin_commit()


def test_launches_are_committed_oldest_first():
    ring = SlotRing()
    launch(ring, "a"), launch(ring, "b")
    assert commit(ring) == "a"
    launch(ring, "c")
    assert [commit(ring), commit(ring)] == ["b", "c"]


def test_looking_at_the_oldest_does_not_take_it():
    ring = SlotRing()
    slot = launch(ring)
    assert ring.oldest() is slot and ring.oldest() is slot and ring.in_flight == 1
    assert ring.begin_commit() is slot and ring.oldest() is None


def test_a_launch_into_a_busy_slot_is_refused():
    ring = SlotRing()
    slot = launch(ring)
    with pytest.raises(RuntimeError, match="slot 0 is not the free one"):
        ring.launched(slot, "again", None, None)
    assert slot.launch == "launch" and ring.in_flight == 1


def test_a_launch_into_a_committing_slot_is_refused():
    ring = SlotRing()
    slot = launch(ring)
    ring.begin_commit()
    with pytest.raises(RuntimeError, match="slot 0 is not the free one"):
        ring.launched(slot, "again", None, None)


def test_a_launch_with_no_slot_free_is_refused():
    ring = SlotRing()
    launch(ring)
    slot = launch(ring)
    with pytest.raises(RuntimeError, match="not the free one"):
        ring.launched(slot, "third", None, None)


def test_in_flight_counts_launches_that_no_commit_has_begun_to_read():
    ring = SlotRing()
    launch(ring), launch(ring)
    assert ring.in_flight == 2
    ring.begin_commit()
    assert ring.in_flight == 1
    ring.end_commit()
    assert ring.in_flight == 1


def test_a_ring_is_empty_only_when_nothing_is_launched_or_committing():
    ring = SlotRing()
    launch(ring)
    assert not ring.is_empty
    ring.begin_commit()
    assert ring.in_flight == 0 and not ring.is_empty
    ring.end_commit()
    assert ring.is_empty


def test_ten_steps_alternate_between_the_slots():
    ring, order = SlotRing(), []
    for _ in range(10):
        order.append(launch(ring).index)
        if ring.free_slot() is None:
            commit(ring)
    assert order == [0, 1] * 5


def test_the_ring_never_holds_more_than_its_depth():
    for depth in (1, 2):
        ring, most = SlotRing(depth), 0
        for _ in range(6):
            launch(ring)
            most = max(most, ring.in_flight)
            if ring.free_slot() is None:
                commit(ring)
        assert most == depth


def test_after_a_device_error_everything_is_dropped_oldest_first():
    ring = SlotRing()
    launch(ring, "a"), launch(ring, "b")
    ring.begin_commit()
    assert ring.drop_all() == ["a", "b"]
    assert ring.is_empty and ring.drop_all() == []
    assert launch(ring, "c").index == 0 and commit(ring) == "c"
