"""Launch and commit: step t + 1 is enqueued before step t has been read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jaxphoton.engine import layout
from jaxphoton.engine.control import TokenReader
from jaxphoton.engine.scheduler import Drain, PrefillPlan, Scheduler, StepPlan
from jaxphoton.engine.sequence import Sequence
from jaxphoton.engine.slots import SlotRing
from jaxphoton.skills.base import Token


class LaunchDevice(Protocol):
    """What a pipeline runs on: the real device, or one that completes when a test says so."""

    def prefill(self, plan: PrefillPlan) -> tuple[np.ndarray, Any]: ...
    def step(self, plan: StepPlan) -> tuple[np.ndarray, Any]: ...
    def fetch(self, output: Any) -> np.ndarray: ...
    def reset(self) -> None: ...


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
    ended, both after the commit's bookkeeping. `on_event(name, launch)` sees "launch", "commit_begin" and
    "commit_end" in the order in which they happen.
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

    @property
    def idle(self) -> bool:
        return self.ring.is_empty and not self.scheduler.has_work

    def tick(self) -> bool:
        """Launches what can be launched, then commits the oldest launch if the pipeline is full or nothing more can be
        launched. Returns whether anything was done."""
        launched, drain = self._launch()
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
        prefill = isinstance(plan, PrefillPlan)
        try:
            control, output = self.device.prefill(plan) if prefill else self.device.step(plan)
        except Exception as error:
            raise DeviceError(f"a launch failed: {error}") from error
        # Only now: positions in the control array count the tokens launched before this one, and a launch that
        # raised leaves nothing to undo.
        for sequence in plan.sequences:
            sequence.inflight_refs += 1
        launch = Launch(self._launches, "prefill" if prefill else "step", plan.sequences)
        self._launches += 1
        self.ring.launched(slot, launch, control, output)
        self._event("launch", launch)
        return True, False

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
        if self._on_token is not None:
            self._on_token(sequence)
        return sequence.finalized

    def _event(self, name: str, launch: Launch) -> None:
        if self._on_event is not None:
            self._on_event(name, launch)
