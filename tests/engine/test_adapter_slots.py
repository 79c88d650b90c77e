"""Slots of adapters: who holds which, who waits for one, and what is put where before a launch."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.engine.adapter_slots import AdapterSlots, StagedAdapters
from jaxphoton.engine.launch import PrefillPlan
from jaxphoton.models.adapters import NO_SLOT, Adapter
from jaxphoton.requests.errors import ModelClosed
from tests.engine.harness import Harness, image, request


def adapter(name: str) -> Adapter:
    return Adapter(name, name.encode(), {}, "")


def with_adapter(name: str | None, **asked):
    return request(adapter=None if name is None else adapter(name), **asked)


def names(harness: Harness) -> list[list[str]]:
    """Of the adapters that each prefill puts into slots."""
    plans = [launch.plan for launch in harness.launches]
    return [[s.request.adapter.name for s in plan.adapters] for plan in plans if isinstance(plan, PrefillPlan)]


def test_an_adapter_keeps_its_slot_until_another_needs_it():
    slots = AdapterSlots(2)
    first, second = slots.acquire(b"a"), slots.acquire(b"b")
    assert {first, second} == {0, 1} and slots.acquire(b"a") == first and slots.users(b"a") == 2
    assert not slots.available(b"c")
    slots.release(b"b"), slots.release(b"a"), slots.release(b"a")
    assert b"a" in slots and b"b" in slots and slots.acquire(b"b") == second
    slots.release(b"b")
    assert slots.acquire(b"c") == first and b"a" not in slots  # released before b was


@pytest.mark.parametrize("call", ["release", "acquire", "discard"])
def test_what_is_not_so_is_refused(call):
    slots = AdapterSlots(1)
    if call != "release":
        slots.acquire(b"b")
    with pytest.raises(ValueError, match=r"user"):
        getattr(slots, call)(b"b" if call == "discard" else b"a")


@given(st.integers(1, 3), st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=40))
def test_an_adapter_in_use_has_one_slot_of_its_own(count, steps):
    slots, held = AdapterSlots(count), dict[bytes, list[int]]()
    for take, which in steps:
        digest = bytes([which])
        if take and slots.available(digest):
            held.setdefault(digest, []).append(slots.acquire(digest))
        elif take:
            assert len(held) == count and digest not in held
        elif digest in held:
            held[digest].pop()
            slots.release(digest)
            held = {digest: taken for digest, taken in held.items() if taken}
        assert all(len(set(taken)) == 1 and slots.users(digest) == len(taken) for digest, taken in held.items())
        assert len({taken[0] for taken in held.values()}) == len(held)


def test_requests_of_one_adapter_put_it_into_its_slot_once():
    harness = Harness(adapter_slots=2)
    sequences = [harness.submit(with_adapter(name)) for name in ("a", None, "a")]
    harness.run()
    later = harness.submit(with_adapter("a"))
    harness.run()
    assert [name for put in names(harness) for name in put] == ["a"]
    for sequence in (*sequences, later):
        harness.check_answer(sequence)
    harness.check_clean()


def test_a_request_waits_for_a_slot_and_others_go_on():
    harness = Harness(stop=0, adapter_slots=1, prefill_rows=4)
    first, second = (harness.submit(with_adapter(name, max_tokens=6)) for name in "ab")
    plain = harness.submit(with_adapter(None, max_tokens=6))
    harness.tick()
    assert first in harness.scheduler.running and plain in harness.scheduler.running
    assert harness.scheduler.waiting == [second] and second.adapter_slot == NO_SLOT
    harness.run()
    assert names(harness) == [["a"], ["b"]] and harness.finished[-1] is second
    for sequence in (first, second, plain):
        harness.check_answer(sequence)


def test_whoever_waits_for_a_slot_is_overtaken_only_so_often():
    harness = Harness(stop=0, rows=2, adapter_slots=1, prefill_rows=1, bypass=3)
    harness.submit(with_adapter("a", max_tokens=6))
    waiting = harness.submit(with_adapter("b", max_tokens=2))
    later = [harness.submit(with_adapter("a", max_tokens=6)) for _ in range(12)]
    harness.run()
    assert sum(harness.finished.index(other) < harness.finished.index(waiting) for other in later) <= 3
    harness.check_clean()


def test_a_slot_goes_when_no_launch_refers_to_it_any_more():
    harness = Harness(stop=0, adapter_slots=1)
    sequence = harness.submit(with_adapter("a", max_tokens=20))
    other = harness.submit(with_adapter("b", max_tokens=2))
    harness.tick(4)
    assert sequence.inflight_refs
    harness.cancel(sequence)
    assert harness.scheduler.adapters.users(b"a") == 1 and other.row is None
    harness.run()
    harness.check_answer(other)
    harness.check_clean()


def test_a_sequence_that_is_set_back_gives_its_slot_back():
    harness = Harness(stop=0, rows=2, pages=9, adapter_slots=2)
    sequences = [harness.submit(with_adapter(name, prompt=8, max_tokens=14)) for name in "ab"]
    seen = set()
    for _ in harness.until_idle():
        seen |= {(s.adapter_slot == NO_SLOT, s.row is None) for s in sequences if s.set_back and not s.finalized}
    assert harness.scheduler.preemptions and seen <= {(True, True), (False, False)} and (True, True) in seen
    for sequence in sequences:
        harness.check_answer(sequence)


def test_after_a_device_error_adapters_are_put_into_slots_again():
    harness = Harness(stop=0, adapter_slots=2, faults={3})
    sequence = harness.submit(with_adapter("a"))
    harness.run()
    assert names(harness) == [["a"], ["a"]]
    harness.check_answer(sequence)


def test_an_image_has_a_prefix_for_each_adapter():
    harness = Harness(adapter_slots=2, prefill_rows=4)
    asked = [harness.submit(with_adapter(name, picture=image(1))) for name in ("a", "b", None, "a")]
    harness.run()
    assert [sequence.cached_tokens > 0 for sequence in asked] == [False, False, False, True]
    assert len(harness.scheduler.prefixes) == 3


def test_without_slots_an_adapter_is_refused():
    with pytest.raises(ValueError, match=r"adapter_slots"):
        Harness().submit(with_adapter("a"))


class Made(StagedAdapters):
    def __init__(self, kept: int, most: int):
        self.made, self.went_up = list[str](), list[str]()
        super().__init__(self.make, self.up, kept, most)

    def make(self, one: Adapter) -> np.ndarray:
        self.made.append(one.name)
        return np.frombuffer(one.digest, np.uint8)

    def up(self, arrays: np.ndarray) -> tuple[str, np.ndarray]:
        self.went_up.append(arrays.tobytes().decode())
        return "up", arrays


def test_an_adapter_is_made_once_for_all_requests_that_are_alive():
    staged = Made(kept=1, most=4)
    first, second = staged.get(adapter("a")), staged.get(adapter("b"))
    assert staged.get(adapter("a")) is first and staged.get(adapter("b")) is second
    del first
    gc.collect()
    staged.get(adapter("b"))
    assert staged.made == ["a", "b"]
    staged.get(adapter("a"))
    assert staged.made == ["a", "b", "a"]


def test_no_more_adapters_than_there_is_room_for_wait_on_the_device():
    staged = Made(kept=1, most=2)
    alive = [staged.get(adapter(name)) for name in "abcd"]
    assert staged.went_up == ["a", "b"] and [isinstance(one.arrays, tuple) for one in alive] == [
        True,
        True,
        False,
        False,
    ]
    del alive[0]
    gc.collect()
    staged.get(adapter("e"))
    assert staged.went_up == ["a", "b", "e"]


def test_a_closed_one_gives_nothing():
    staged = Made(1, 1)
    staged.close()
    with pytest.raises(ModelClosed):
        staged.get(adapter("a"))
