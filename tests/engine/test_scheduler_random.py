"""Random use of the scheduler: nothing is lost, nobody starves."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jaxphoton.engine.launch import Drain, PrefillPlan
from jaxphoton.engine.request import Sequence
from jaxphoton.requests.tokens import Token
from tests.engine.harness import Harness, check_books, check_clean, image, request


class Schedules(RuleBasedStateMachine):
    """Any order of arrivals, launches, commits and endings; at most two launches at a time, committed in order."""

    @initialize(
        rows=st.integers(1, 5),
        pages=st.integers(8, 30),
        prefill_rows=st.integers(1, 3),
        bypass=st.integers(0, 3),
        share=st.booleans(),
    )
    def begin(self, rows: int, pages: int, prefill_rows: int, bypass: int, share: bool) -> None:
        self.harness = Harness(
            rows=rows, pages=pages, prefill_rows=prefill_rows, vision=((2, 4),), bypass=bypass, share_prefixes=share
        )
        self.scheduler = self.harness.scheduler
        self.launches: deque[tuple[Sequence, ...]] = deque()
        self.live: list[Sequence] = []

    @rule(prompt=st.integers(1, 20), most=st.integers(1, 12), name=st.integers(-2, 2), crops=st.integers(1, 4))
    def submit(self, prompt: int, most: int, name: int, crops: int) -> None:
        sequence = self.harness.sequence(request("text", prompt, image(name, crops) if name > 0 else None, most))
        try:
            self.scheduler.check(sequence)
        except ValueError:
            return
        self.scheduler.add(sequence)
        self.live.append(sequence)

    @rule()
    def launch(self) -> None:
        if len(self.launches) == 2:
            return
        running, free = list(self.scheduler.running), self.scheduler.allocator.free
        plan = self.scheduler.plan(len(self.launches))
        if self.launches:
            assert running == self.scheduler.running[: len(running)], "set back with launches in flight"
        if plan is None:
            assert self.launches or not self.live, "nothing is under way and nothing is planned"
            return
        if isinstance(plan, Drain):
            assert self.launches
            return
        limits = self.scheduler.limits
        if isinstance(plan, PrefillPlan):
            assert len(plan.sequences) <= limits.prefill_rows and set(plan.images) <= set(plan.sequences)
            crops = [len(s.request.image.crops.pixels) for s in plan.images if s.request.image]
            assert limits.fits_vision(len(crops), sum(crops))
            assert all(len(s.pages) == s.pages_for(s.prefill_length) for s in plan.sequences)
        else:
            assert all(len(s.pages) >= s.pages_for(s.prompt_length + s.launched) for s in plan.sequences)
            assert free >= 0
        for sequence in plan.sequences:
            sequence.inflight_refs += 1
        self.launches.append(plan.sequences)

    @precondition(lambda self: self.launches)
    @rule(ends=st.integers(0, 7))
    def commit(self, ends: int) -> None:
        for i, sequence in enumerate(self.launches.popleft()):
            sequence.inflight_refs -= 1
            if sequence.finalized:
                self.scheduler.settle(sequence)
                continue
            sequence.tokens.append(Token(11))
            if len(sequence.tokens) == sequence.max_tokens or ends >> i & 1:
                self._end(sequence)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self._end(data.draw(st.sampled_from(self.live)))

    def _end(self, sequence: Sequence) -> None:
        self.scheduler.finalize(sequence)
        self.live.remove(sequence)

    @invariant()
    def every_page_and_row_is_in_one_place(self) -> None:
        if hasattr(self, "scheduler"):
            check_books(self.scheduler)
            assert len(self.scheduler.running) + len(self.scheduler.zombies) <= self.scheduler.limits.rows
            numbers = [s.request.number for s in self.scheduler.waiting]
            assert numbers == sorted(numbers)

    @invariant()
    def nobody_is_overtaken_too_often(self) -> None:
        if hasattr(self, "scheduler"):
            assert all(s.bypassed <= self.scheduler.limits.bypass for s in self.live)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for _ in range(3000):
            if not self.scheduler.has_work:
                break
            self.launch()
            if self.launches:
                self.commit(0)
        assert not self.live, "a request never ends"
        check_clean(self.scheduler)


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(max_examples=100, stateful_step_count=60)
