"""Launch and commit: step t + 1 is enqueued before step t has been read.

A step in which the host restricts some row's ids goes in two: forward t + 1 is enqueued, step t is committed, and only
then, with masks built from its tokens, sampling of t + 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jaxphoton.engine import layout
from jaxphoton.engine.control import Masks, TokenReader
from jaxphoton.engine.scheduler import Drain, PrefillPlan, Scheduler, StepPlan
from jaxphoton.engine.sequence import Sequence
from jaxphoton.engine.slots import DecodeSlot, SlotRing
from jaxphoton.skills.base import Token


class LaunchDevice(Protocol):
    """What a pipeline runs on: the real device, or one that completes when a test says so."""

    def prefill(self, plan: PrefillPlan) -> tuple[np.ndarray, Any]: ...
    def step(self, plan: StepPlan) -> tuple[np.ndarray, Any]: ...
    def forward(self, plan: StepPlan) -> tuple[np.ndarray, Any]: ...
    def sample(self, plan: StepPlan, pending: Any, masks: Masks) -> Any: ...
    def fetch(self, output: Any) -> np.ndarray: ...
    def reset(self) -> None: ...


Failures = list[tuple[Sequence, Exception]]


class DeviceError(RuntimeError):
    """A launch or its result failed on the device: what it holds can no longer be trusted."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch under way. `owners` is the snapshot its tokens are credited to: rows may change hands before the
    commit. `number` counts launches."""

    number: int
    kind: str
    owners: tuple[Sequence, ...]


class Pipeline:
    """Keeps up to `depth` launches under way.

    `on_token(sequence)` is called for each committed token, `on_finish(sequence)` once for each sequence that has
    ended, both after the commit's bookkeeping. `on_event(name, launch)` sees "launch", "sample" (of a step in two),
    "commit_begin" and "commit_end" in the order in which they happen.
    """

    def __init__(
        self,
        device: LaunchDevice,
        scheduler: Scheduler,
        reader: TokenReader,
        depth: int,
        on_finish: Callable[[Sequence], None],
        on_token: Callable[[Sequence], None] | None = None,
        on_event: Callable[[str, Launch], None] | None = None,
    ):
        self.device, self.scheduler, self.ring = device, scheduler, SlotRing[Launch](depth)
        self._reader, self._on_finish, self._on_token, self._on_event = reader, on_finish, on_token, on_event
        self._launches = 0
        self._unsampled: tuple[DecodeSlot[Launch], StepPlan] | None = None

    @property
    def idle(self) -> bool:
        return self.ring.is_empty and not self.scheduler.has_work

    def tick(self) -> bool:
        """Launches what can be launched, then commits the oldest launch if the pipeline is full or nothing more can be
        launched. Returns whether anything was done."""
        launched, drain = self._launch()
        if self._unsampled is not None:
            while self.ring.in_flight > 1:
                self.commit_oldest()
            self._finalize_sampling(*self._unsampled)
        full = self.ring.free_slot() is None
        if self.ring.in_flight and (full or not launched):
            self.commit_oldest()
            while drain and self.ring.in_flight:
                self.commit_oldest()
            return True
        return launched

    def _launch(self) -> tuple[bool, bool]:
        slot = self.ring.free_slot()
        if slot is None:
            return False, False
        plan = self.scheduler.plan(self.ring.in_flight)
        if plan is None or isinstance(plan, Drain):
            return False, plan is not None
        split = isinstance(plan, StepPlan) and any(s.constraint is not None for s in plan.sequences)
        failures: Failures = []
        try:
            if isinstance(plan, PrefillPlan):
                plan = dataclasses.replace(plan, masks=_masks(plan.sequences, failures))
                control, output = self.device.prefill(plan)
            else:
                control, output = self.device.forward(plan) if split else self.device.step(plan)
        except Exception as error:
            raise DeviceError(f"a launch failed: {error}") from error
        # Only now: positions in the control array count the tokens launched before this one, and a launch that
        # raised leaves nothing to undo.
        for sequence in plan.sequences:
            sequence.inflight_refs += 1
        launch = Launch(self._launches, "prefill" if isinstance(plan, PrefillPlan) else "step", plan.sequences)
        self._launches += 1
        self.ring.launched(slot, launch, control, output)
        if split:
            self._unsampled = slot, plan
        self._event("launch", launch)
        self._give_up(failures)
        return True, False

    def _finalize_sampling(self, slot: DecodeSlot[Launch], plan: StepPlan) -> None:
        """The second part of a step in two; all earlier launches have been committed."""
        assert slot.launch is not None
        failures: Failures = []
        masks = _masks(plan.sequences, failures)
        try:
            slot.output = self.device.sample(plan, slot.output, masks)
        except Exception as error:
            raise DeviceError(f"sampling failed: {error}") from error
        self._unsampled = None
        self._event("sample", slot.launch)
        self._give_up(failures)

    def _give_up(self, failures: Failures) -> None:
        """Ends requests whose constraint raised; the launch under way still refers to them."""
        for sequence, error in failures:
            sequence.error = error
            self.scheduler.finalize(sequence)
            self._on_finish(sequence)

    def commit_oldest(self) -> None:
        """Reads the oldest launch and credits its tokens: the only place where the host waits for the device."""
        slot = self.ring.begin_commit()
        launch = slot.launch
        assert launch is not None
        self._event("commit_begin", launch)
        try:
            output = self.device.fetch(slot.output)
        except Exception as error:
            raise DeviceError(f"a {launch.kind} failed: {error}") from error
        rows = zip(launch.owners, self._reader.read(output), strict=False)
        ended = [sequence for sequence, (token, finish) in rows if self._credit(sequence, token, finish)]
        self.ring.end_commit()
        self._event("commit_end", launch)
        for sequence in ended:
            self._on_finish(sequence)

    def start_over(self) -> list[Sequence]:
        """After a DeviceError: drops everything in flight and all device state, and queues every live sequence again
        with its committed tokens. Returns those that had been admitted."""
        self.ring.drop_all()
        self._unsampled = None
        self.device.reset()
        return self.scheduler.start_over()

    def _credit(self, sequence: Sequence, token: Token, finish: int) -> bool:
        """Takes one row of an output; True if it ends the sequence. A zombie's row changes nothing."""
        sequence.inflight_refs -= 1
        if sequence.finalized:
            self.scheduler.settle(sequence)
            return False
        sequence.tokens.append(token)
        if finish != layout.RUNNING:
            sequence.finish_reason = "stop" if finish == layout.STOP else "length"
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

    def _event(self, name: str, launch: Launch) -> None:
        if self._on_event is not None:
            self._on_event(name, launch)


def _masks(sequences: tuple[Sequence, ...], failures: Failures) -> dict[Sequence, np.ndarray]:
    """What the host allows next; what a constraint raises goes to `failures`, and its row samples freely once more."""
    masks = {}
    for sequence in sequences:
        if sequence.constraint is not None and not sequence.finalized:
            try:
                masks[sequence] = sequence.constraint.mask()
            except Exception as error:
                failures.append((sequence, error))
    return masks
