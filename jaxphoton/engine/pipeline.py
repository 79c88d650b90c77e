"""Launch and commit: step t + 1 is enqueued before step t has been read.

A step in which the host restricts some row's ids goes in two: forward t + 1 is enqueued, step t is committed, and only
then, with masks built from its tokens, sampling of t + 1.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxphoton.engine.control import RUNNING, STOP, checked_mask, read_tokens
from jaxphoton.engine.launch import DeviceError, Drain, Launch, LaunchDevice, PrefillPlan, StepPlan, device_errors
from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.engine.request import Sequence
from jaxphoton.engine.scheduler import Scheduler
from jaxphoton.models.protocol import Readout
from jaxphoton.requests.errors import NotFinite, RequestFault
from jaxphoton.requests.tokens import Token

__all__ = ["DeviceError", "Launch", "LaunchDevice", "Pipeline"]

DEPTH = 2  # the most launches under way
NOT_FINITE = "no answer: the model's logits are not finite (its weights or this adapter have diverged, or overflow)"
Failures = list[tuple[Sequence, Exception]]


class Pipeline:
    """Keeps up to `depth` launches under way: 1 blocks on every step, 2 pipelines.

    Launches are committed in the order in which they were enqueued; while one is committed, none is enqueued.

    `on_token(sequence)` is called for each committed token, `on_finish(sequence)` once for each sequence that has
    ended, both after the commit's bookkeeping. `on_event(name, launch)` sees "launch", "sample" (of a step in two),
    "commit_begin" and "commit_end" in the order in which they happen; `on_metrics` what a launch has cost, after its
    commit and before `on_finish`. `clock` gives seconds. Constraints must give masks of `mask_words` words, if that is
    given.
    """

    def __init__(
        self,
        device: LaunchDevice,
        scheduler: Scheduler,
        readout: Readout | None,
        depth: int,
        on_finish: Callable[[Sequence], None],
        on_token: Callable[[Sequence], None] | None = None,
        on_event: Callable[[str, Launch], None] | None = None,
        on_metrics: Callable[[LaunchMetrics], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        mask_words: int | None = None,
    ):
        if not 1 <= depth <= DEPTH:
            raise ValueError(f"depth must be 1 (blocking) or {DEPTH} (pipelined), got {depth}")
        self.device, self.scheduler, self.depth = device, scheduler, depth
        self.in_flight: deque[Launch] = deque()
        self._readout, self._on_finish, self._on_token, self._on_event = readout, on_finish, on_token, on_event
        self._on_metrics, self._clock, self._mask_words = on_metrics, clock, mask_words
        self._launches = 0

    @property
    def idle(self) -> bool:
        return not self.in_flight and not self.scheduler.has_work

    def tick(self) -> bool:
        """Launches what can be launched, then commits the oldest launch if the pipeline is full or nothing more can be
        launched. Returns whether anything was done."""
        launch, drain = self._launch()
        if launch is not None and launch.unsampled:
            while len(self.in_flight) > 1:
                self.commit_oldest()
            self._finalize_sampling(launch)
        self.device.encode_ahead(self.scheduler.next_image)
        if self.in_flight and (launch is None or len(self.in_flight) == self.depth):
            self.commit_oldest()
            while drain and self.in_flight:
                self.commit_oldest()
            return True
        return launch is not None

    def _launch(self) -> tuple[Launch | None, bool]:
        """A new launch, if there is one; and whether the pipeline must be drained first."""
        if len(self.in_flight) == self.depth:
            return None, False
        began = self._clock()
        while True:
            plan = self.scheduler.plan(len(self.in_flight))
            if plan is None or isinstance(plan, Drain):
                return None, plan is not None
            planned = self._clock()
            failures: Failures = []
            try:
                with device_errors("a launch"):
                    control, output, unsampled = self._enqueue(plan, failures)
                break
            except RequestFault as fault:  # planned again without it
                self._turn_away(plan, fault)
        # Only now: positions in the control array count the tokens launched before this one, and a launch that
        # raised leaves nothing to undo.
        for sequence in plan.sequences:
            sequence.inflight_refs += 1
            if sequence.launched_at is None:
                sequence.launched_at = planned
        kind = "prefill" if isinstance(plan, PrefillPlan) else "step"
        spent = {"plan": planned - began, "launch": self._clock() - planned, "sample": 0.0}
        launch = Launch(self._launches, kind, plan.sequences, plan, control, output, unsampled, began, spent)
        self._launches += 1
        self.in_flight.append(launch)
        self._event("launch", launch)
        self._give_up(failures)
        return launch, False

    def _enqueue(self, plan: PrefillPlan | StepPlan, failures: Failures) -> tuple[np.ndarray, Any, bool]:
        """Enqueues a plan: (control, output or what `sample` takes, whether `sample` is still to come)."""
        if isinstance(plan, PrefillPlan):
            masks = self._masks(plan.sequences, failures)
            return *self.device.prefill(dataclasses.replace(plan, masks=masks)), False
        if any(sequence.constraint is not None for sequence in plan.sequences):
            return *self.device.forward(plan), True
        return *self.device.step(plan), False

    def _finalize_sampling(self, launch: Launch) -> None:
        """The second part of a step in two; all earlier launches have been committed."""
        assert isinstance(launch.plan, StepPlan)
        launch.sampled = self._clock()
        failures: Failures = []
        masks = self._masks(launch.owners, failures)
        with device_errors("sampling"):
            launch.output = self.device.sample(launch.plan, launch.output, masks)
        launch.unsampled = False
        launch.spent["sample"] = self._clock() - launch.sampled
        self._event("sample", launch)
        self._give_up(failures)

    def _turn_away(self, plan: PrefillPlan | StepPlan, fault: RequestFault) -> None:
        """Ends the request that could not be packed; the others of its plan are as they were before it."""
        if isinstance(plan, PrefillPlan):
            self.scheduler.take_back(plan)
        cause = fault.__cause__
        self._give_up([(fault.sequence, cause if isinstance(cause, Exception) else fault)])

    def _give_up(self, failures: Failures) -> None:
        """Ends requests by their own fault; a launch under way may still refer to them."""
        for sequence, error in failures:
            sequence.error = error
            self.scheduler.finalize(sequence)
            self._on_finish(sequence)

    def commit_oldest(self) -> None:
        """Reads the oldest launch and credits its tokens: the only place where the host waits for the device."""
        began = self._clock()
        launch = self.in_flight.popleft()
        self._event("commit_begin", launch)
        with device_errors(f"a {launch.kind}"):
            output = self.device.fetch(launch.output)
        arrived = self._clock()
        zombies = sum(sequence.finalized for sequence in launch.owners)
        rows = zip(launch.owners, read_tokens(output, self._readout), strict=False)
        ended = [sequence for sequence, (token, finish) in rows if self._credit(sequence, token, finish, arrived)]
        self._event("commit_end", launch)
        # First: whoever waits for the results may look at the sums next.
        if self._on_metrics is not None:
            pages = self.scheduler.allocator.usable - self.scheduler.allocator.free
            slot = launch.number % self.depth
            self._on_metrics(launch.metrics(slot, zombies, pages, began, arrived, self._clock()))
        for sequence in ended:
            self._on_finish(sequence)

    def start_over(self) -> list[Sequence]:
        """After a DeviceError: drops everything in flight and all device state, and queues every live sequence again
        with its committed tokens. Returns those that had been admitted."""
        self.in_flight.clear()
        self.device.reset()
        return self.scheduler.start_over()

    def close(self) -> None:
        """Lets go of the device and of whoever listens; what is in flight is forgotten."""
        self.in_flight.clear()
        del self.device, self._on_finish, self._on_token, self._on_event, self._on_metrics

    def _credit(self, sequence: Sequence, token: Token, finish: int, now: float) -> bool:
        """Takes one row of an output; True if it ends the sequence. A zombie's row changes nothing."""
        sequence.inflight_refs -= 1
        if sequence.finalized:
            self.scheduler.settle(sequence)
            return False
        # Of logits that are not finite no log-probability is a number; what such a row has chosen means nothing.
        if math.isnan(token.logprob):
            sequence.error = NotFinite(NOT_FINITE)
            self.scheduler.finalize(sequence)
            return True
        sequence.tokens.append(token)
        if sequence.first_token_at is None:
            sequence.first_token_at = now
        if finish != RUNNING:
            sequence.finish_reason = "stop" if finish == STOP else "length"
            self.scheduler.finalize(sequence)
        elif sequence.constraint is not None:
            try:
                sequence.constraint.accept(token.id)
            except Exception as error:
                sequence.error = error
                self.scheduler.finalize(sequence)
        if self._on_token is not None:
            self._on_token(sequence)
        return sequence.finalized

    def _masks(self, sequences: tuple[Sequence, ...], failures: Failures) -> dict[Sequence, np.ndarray]:
        """What the host allows next; what a constraint raises goes to `failures`, and its row samples freely once
        more."""
        masks = {}
        for sequence in sequences:
            if sequence.constraint is not None and not sequence.finalized:
                try:
                    mask = sequence.constraint.mask()
                    masks[sequence] = mask if self._mask_words is None else checked_mask(mask, self._mask_words)
                except Exception as error:
                    failures.append((sequence, error))
        return masks

    def _event(self, name: str, launch: Launch) -> None:
        if self._on_event is not None:
            self._on_event(name, launch)
