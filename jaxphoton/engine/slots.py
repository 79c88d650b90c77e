"""The two slots of the pipeline and the order in which a launch goes through one.

launch -> in flight -> committing -> free. A slot is free again only after the commit that read it: its control
buffer and its output belong to that launch until then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SLOTS = 2


@dataclass(slots=True)
class DecodeSlot(Generic[T]):
    """Where one launch lives on the host.

    Attributes:
      index: 0 or 1.
      launch: what was launched (rows' owners, kind of program); None while the slot is free.
      control: the int32 control array of the launch. The device may read it until the commit: never reused.
      output: the program's output on the device.
    """

    index: int
    launch: T | None = None
    control: Any = None
    output: Any = None


class SlotRing(Generic[T]):
    """The state machine of the slots; breaking its order is a bug and raises RuntimeError."""

    def __init__(self, depth: int = SLOTS):
        if not 1 <= depth <= SLOTS:
            raise ValueError(f"depth must be 1 (blocking) or {SLOTS} (pipelined), got {depth}")
        self.depth = depth
        self._slots = [DecodeSlot[T](index) for index in range(SLOTS)]
        self._in_flight: deque[DecodeSlot[T]] = deque()
        self._committing: DecodeSlot[T] | None = None

    @property
    def in_flight(self) -> int:
        """Launches that no commit has begun to read."""
        return len(self._in_flight)

    @property
    def is_empty(self) -> bool:
        return not self._in_flight and self._committing is None

    def free_slot(self) -> DecodeSlot[T] | None:
        """The slot that the next launch takes, lowest index first; None if `depth` launches are under way."""
        busy = {slot.index for slot in self._in_flight}
        if self._committing is not None:
            busy.add(self._committing.index)
        if len(busy) >= self.depth:
            return None
        return next(slot for slot in self._slots if slot.index not in busy)

    def launched(self, slot: DecodeSlot[T], launch: T, control: Any, output: Any) -> None:
        """Records a launch into a free slot."""
        if slot is not self.free_slot():
            raise RuntimeError(f"slot {slot.index} is not the free one")
        slot.launch, slot.control, slot.output = launch, control, output
        self._in_flight.append(slot)

    def oldest(self) -> DecodeSlot[T] | None:
        """The launch to be committed next, without taking it."""
        return self._in_flight[0] if self._in_flight else None

    def begin_commit(self) -> DecodeSlot[T]:
        """Takes the oldest launch; its slot stays busy until `end_commit`."""
        if self._committing is not None:
            raise RuntimeError("a commit is under way already")
        if not self._in_flight:
            raise RuntimeError("nothing is in flight")
        self._committing = self._in_flight.popleft()
        return self._committing

    def end_commit(self) -> None:
        """Frees the slot whose commit has finished."""
        slot = self._committing
        if slot is None:
            raise RuntimeError("no commit is under way")
        slot.launch = slot.control = slot.output = None
        self._committing = None

    def drop_all(self) -> list[T]:
        """Forgets everything after a device error; returns the launches, oldest first."""
        taken = [self._committing] if self._committing is not None else []
        taken += self._in_flight
        launches = [slot.launch for slot in taken if slot.launch is not None]
        for slot in taken:
            slot.launch = slot.control = slot.output = None
        self._in_flight.clear()
        self._committing = None
        return launches
