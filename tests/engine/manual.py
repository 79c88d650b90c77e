"""A scheduler whose launches are made and committed by hand."""

from __future__ import annotations

from jaxphoton.engine.launch import PrefillPlan, StepPlan
from jaxphoton.engine.request import Sequence
from jaxphoton.requests.tokens import Token
from tests.engine.harness import Harness


class ManualHarness(Harness):
    """`prefill` and `step` take the next plan, which must be of that kind; `commit` gives each a token."""

    def prefill(self, in_flight: int = 0) -> tuple[Sequence, ...]:
        plan = self.scheduler.plan(in_flight)
        assert isinstance(plan, PrefillPlan)
        return self.launch(plan)

    def step(self, in_flight: int = 0) -> tuple[Sequence, ...]:
        plan = self.scheduler.plan(in_flight)
        assert isinstance(plan, StepPlan)
        return self.launch(plan)

    def launch(self, plan: PrefillPlan | StepPlan) -> tuple[Sequence, ...]:
        for sequence in plan.sequences:
            sequence.inflight_refs += 1
        self.check_books()
        return plan.sequences

    def commit(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            sequence.inflight_refs -= 1
            if sequence.finalized:
                self.scheduler.settle(sequence)
            else:
                sequence.tokens.append(Token(11))
        self.check_books()

    def end(self, sequence: Sequence) -> None:
        self.scheduler.finalize(sequence)
        self.check_books()
