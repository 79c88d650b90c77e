"""A piece of work for a child process, and what one child has of it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from jaxphoton.processes.assignments import Assignments


@dataclass(slots=True, eq=False, kw_only=True)
class Assignment:
    """A piece of work.

    Attributes:
      name: of its image, for errors.
      deadline: in seconds of `time.monotonic()`; None for never.
      priority: a higher one is sent first.
      number: of this among all; given by `Assignments.put`.
      losses: children that died, or were killed because they hung, while they had it.
      begun: parts of its result were delivered, so it cannot be tried again.
      given_up: nobody wants it any more.
      sent: the child that has it was told of it.
      owner: where it was put.
      claims: its future cannot be cancelled from when a child has it.
    """

    name: str = ""
    deadline: float | None = None
    priority: int = 0
    future: Future[Any] = field(default_factory=Future)
    number: int = -1
    losses: int = 0
    begun: bool = False
    given_up: bool = False
    sent: bool = False
    claims: bool = False
    owner: Assignments | None = field(default=None, repr=False)

    def cancel(self) -> None:
        """Gives it up, unless it has ended: at once where it waits, and through its child where one has it."""
        if self.owner is not None:
            self.owner.cancel(self)

    def finish(self, outcome: Any) -> None:
        """Its result, or the exception that stands for it."""
        if isinstance(outcome, CancelledError):
            self.future.cancel()
        if not self.future.running() and not self.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


A = TypeVar("A", bound=Assignment)


@dataclass(slots=True, eq=False)
class WorkerLoad(Generic[A]):
    """What one child has.

    Attributes:
      room: assignments it takes at once.
      tasks: those that it has, by number, in the order in which they were sent.
      cancelled: those of them that it has yet to be told to give up.
      alone: it has a suspect.
      finished: how many it has finished.
      gone: it is dead.
      hung: why it was killed, if it was.
    """

    room: int
    tasks: dict[int, A] = field(default_factory=dict)
    cancelled: deque[A] = field(default_factory=deque)
    alone: bool = False
    finished: int = 0
    gone: bool = False
    hung: str = ""
