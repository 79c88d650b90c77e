"""Any schedule: every request ends with exactly its tokens, and nothing is left behind."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.engine.adapter_slots import AdapterSlots
from jaxphoton.engine.control import ControlPacker, Row
from jaxphoton.engine.pages import PageAllocator
from jaxphoton.engine.request import Request, Sequence
from jaxphoton.engine.scheduler import Scheduler
from jaxphoton.models.adapters import Adapter
from tests.engine.fake import DeviceFault, Geometry
from tests.engine.harness import Harness, image, request

ADAPTERS = st.none() | st.builds(lambda name: Adapter(name, name.encode(), {}, ""), st.sampled_from("abc"))
PICTURES = st.builds(image, st.integers(1, 3), st.integers(1, 4))


@st.composite
def requests(draw) -> Request:
    """Two in five have further pictures, if they have so many ids."""
    prompt = draw(st.integers(1, 25))
    places = draw(st.sampled_from([0, 0, 0, 1, 2]))
    further = draw(st.dictionaries(st.integers(0, prompt - 1), PICTURES, max_size=places))
    return request(
        draw(st.sampled_from(["text", "reasoning", "detect", "point"])),
        prompt,
        draw(st.none() | PICTURES),
        max_tokens=draw(st.integers(1, 30)),
        adapter=draw(ADAPTERS),
        further=dict(sorted(further.items())),
        max_objects=draw(st.integers(1, 6)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


# A request, ticks before the next one arrives, launches that complete by themselves meanwhile, and after how many
# further arrivals it is cancelled.
ARRIVALS = st.lists(
    st.tuples(requests(), st.integers(0, 8), st.integers(0, 9), st.none() | st.integers(0, 3)), min_size=2, max_size=12
)


@settings(max_examples=200)
@given(
    arrivals=ARRIVALS,
    depth=st.sampled_from([2, 1]),
    rows=st.integers(2, 6),
    pages=st.integers(9, 20),
    prefill_rows=st.integers(1, 3),
    share=st.booleans(),
    slots=st.integers(1, 2),
    stop=st.sampled_from([0.03, 0.0, 0.3]),
    faults=st.just(frozenset()) | st.frozensets(st.integers(0, 40), max_size=3),
)
def test_any_schedule_gives_every_request_its_tokens(
    arrivals, depth, rows, pages, prefill_rows, share, slots, stop, faults
):
    limits = {"prefill_rows": prefill_rows, "vision": ((2, 4),), "share_prefixes": share, "adapter_slots": slots}
    harness = Harness(depth, rows, pages, stop, Geometry(rows), faults, **limits)
    sequences, given_up = [], {}
    for number, (drawn, ticks, completing, patience) in enumerate(arrivals):
        try:
            sequence = harness.submit(drawn)
        except ValueError as refusal:
            assert "pages of the cache" in str(refusal)
            continue
        sequences.append(sequence)
        if patience is not None:
            given_up.setdefault(number + patience, []).append(sequence)
        harness.tick(ticks)
        harness.device.complete(completing)
        for victim in given_up.get(number, []):
            harness.cancel(victim)
    harness.run()
    for sequence in sequences:
        harness.check_answer(sequence)
    harness.check_clean()


# The fake device is only worth something if it notices. Each of these breaks one rule.


def busy(**changes) -> None:
    harness = Harness(**{"rows": 3, "stop": 0.3, "pages": 16, **changes})
    for seed in range(12):
        grammar = ("text", "reasoning", "detect", "point")[seed % 4]
        further = {2: image(seed % 3)} if seed % 5 == 4 else {}
        picture = image(seed % 3) if seed % 2 else None
        harness.submit(request(grammar, 4 + seed % 3, picture, max_tokens=16, further=further, seed=seed))
    harness.check_books = lambda: None
    harness.run()


def test_an_unbroken_pipeline_passes():
    busy()


def test_rows_and_pages_released_with_a_step_under_way_are_noticed(monkeypatch):
    def finalize(scheduler: Scheduler, sequence: Sequence) -> None:
        sequence.finalized = True
        scheduler.running.remove(sequence)
        scheduler._release(sequence)

    monkeypatch.setattr(Scheduler, "finalize", finalize)
    with pytest.raises(DeviceFault, match="change hands"):
        busy()


def test_a_page_with_two_owners_is_noticed(monkeypatch):
    allocate = PageAllocator.allocate

    def careless(allocator: PageAllocator, count: int) -> list[int]:
        pages = allocate(allocator, count)
        return [3 if page == 4 else page for page in pages]

    monkeypatch.setattr(PageAllocator, "allocate", careless)
    with pytest.raises(DeviceFault):
        busy()


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_wrong_position_is_noticed(monkeypatch, shift):
    step = ControlPacker.step

    def shifted(packer: ControlPacker, *arguments) -> np.ndarray:
        control = step(packer, *arguments)
        control[0, Row.POSITION] += shift
        return control

    monkeypatch.setattr(ControlPacker, "step", shifted)
    with pytest.raises(DeviceFault, match="position"):
        busy()


def test_a_page_table_of_the_last_tenant_is_noticed(monkeypatch):
    def stale(packer: ControlPacker, sequence: Sequence) -> int:
        row = sequence.row
        assert row is not None
        packer._made_from[row] = sequence.pages, len(sequence.pages)
        return line_of(packer, sequence)

    line_of = ControlPacker._line_of
    monkeypatch.setattr(ControlPacker, "_line_of", stale)
    with pytest.raises(DeviceFault):
        busy()


def test_a_forgotten_gap_is_noticed(monkeypatch):
    class Flat(Sequence):
        def pages_for(self, length: int) -> int:
            return -(-length // self._page_size) - self.prefix_page_count

    monkeypatch.setattr("tests.engine.harness.Sequence", Flat)
    with pytest.raises(DeviceFault, match="belongs to nobody"):
        busy()


def test_a_page_that_was_never_granted_is_noticed(monkeypatch):
    monkeypatch.setattr(Scheduler, "_grow", lambda scheduler, sequence: True)
    with pytest.raises(DeviceFault, match="belongs to nobody"):
        busy()


def test_a_prefix_evicted_while_in_use_is_noticed(monkeypatch):
    def fits(scheduler: Scheduler, pages: int) -> bool:
        for entry in scheduler.prefixes._entries.values():
            entry.users = 0
        scheduler.prefixes.evict(99)
        return scheduler.allocator.free >= pages

    monkeypatch.setattr(Scheduler, "_make_room", fits)
    monkeypatch.setattr("jaxphoton.engine.pages.PrefixCache.release", lambda cache, key: None)
    with pytest.raises(DeviceFault):
        busy()


def test_committing_in_the_wrong_order_is_noticed(monkeypatch):
    class Newest(deque):
        popleft = deque.pop

    monkeypatch.setattr("jaxphoton.engine.pipeline.deque", Newest)
    with pytest.raises(DeviceFault, match="is due"):
        busy()


def test_a_slot_that_changes_hands_too_early_is_noticed(monkeypatch):
    def available(slots: AdapterSlots, digest: bytes) -> bool:
        return True

    def room(slots: AdapterSlots) -> int:
        return slots._free.pop() if slots._free else slots._held.pop(next(iter(slots._held))).slot

    monkeypatch.setattr(AdapterSlots, "available", available)
    monkeypatch.setattr(AdapterSlots, "_room", room)
    harness = Harness(rows=3, stop=0, pages=16, adapter_slots=1)
    for name in "ab":
        harness.submit(request(adapter=Adapter(name, name.encode(), {}, "")))
    harness.check_books = lambda: None
    with pytest.raises(DeviceFault, match="for the adapter"):
        harness.run()
