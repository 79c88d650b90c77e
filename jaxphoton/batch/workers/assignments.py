"""The jobs of a run among its engine processes: who has which, and what becomes of those whose process died."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count

from jaxphoton.batch.errors import BatchError
from jaxphoton.batch.workers.protocol import pack_job
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Job


class ReplicaError(BatchError):
    """There is no engine process, or none is left."""


@dataclass(slots=True, eq=False)
class Assignment:
    """A job ready to be sent.

    Attributes:
      frame, data: see `wire.pack_job`.
      name: of the image, for errors.
      deaths: processes that died, or were killed because they hung, while they had it.
    """

    number: int
    frame: bytes
    data: bytes | None
    name: str
    future: Future[Answer] = field(default_factory=Future)
    deaths: int = 0

    def finish(self, outcome: Answer | Exception) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


@dataclass(slots=True, eq=False)
class WorkerLoad:
    """What one process has.

    Attributes:
      room: tasks it takes at once.
      tasks: those that it has, by number.
      alone: it has a suspect.
      answers: how many it has given.
      gone: it is dead.
      hung: why it was killed, if it was.
    """

    room: int
    tasks: dict[int, Assignment] = field(default_factory=dict)
    alone: bool = False
    answers: int = 0
    gone: bool = False
    hung: str = ""


class Assignments:
    """Hands tasks out, and takes them back from processes that died.

    Nobody knows which of its tasks killed a process. So each becomes a suspect, tried again with nothing beside it:
    whatever process dies then, dies of that one, and no other task fails for its company. New processes try them
    first; where none is being started, one that runs is emptied for them.

    Attributes:
      room: of each process; 0 until the first is ready.
      fault: why nothing goes on; None while it does.
    """

    def __init__(self, processes: int):
        self._changed = threading.Condition()
        self._waiting: deque[Assignment] = deque()
        self._suspects: deque[Assignment] = deque()
        self._hands: list[WorkerLoad] = []
        self._numbers = count()
        self._processes = self._starting = processes
        self._first_tried = False
        self.room = 0
        self.fault: ReplicaError | None = None

    def put(self, job: Job) -> Assignment:
        """Adds a job.

        Raises:
          TypeError: see `pack_job`.
          ReplicaError: nothing goes on.
        """
        number = next(self._numbers)
        frame, data = pack_job(number, job)
        task = Assignment(number, frame, data, job.name or ("<bytes>" if data is not None else os.fsdecode(job.image)))
        with self._changed:
            if self.fault:
                raise self.fault
            self._waiting.append(task)
            self._changed.notify_all()
        return task

    def wait_until_ready(self) -> None:
        """Waits for the first process.

        Raises:
          ReplicaError: there will be none.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.room or self.fault)
            if self.fault:
                raise self.fault

    def wait_for_first(self) -> None:
        """Waits until one process has started, or failed to: the others find what it has compiled."""
        with self._changed:
            self._changed.wait_for(lambda: self._first_tried or self.fault)

    def pause(self, seconds: float) -> None:
        """Waits, or until nothing goes on."""
        with self._changed:
            self._changed.wait_for(lambda: self.fault, seconds)

    def join(self, hand: WorkerLoad) -> None:
        """A process is ready."""
        with self._changed:
            self._hands.append(hand)
            self._starting -= 1
            self._first_tried = True
            self.room = hand.room
            self._changed.notify_all()

    def take(self, hand: WorkerLoad) -> Assignment | None:
        """The next task for a process; None when it is dead or nothing goes on."""
        with self._changed:
            while not self.fault and not hand.gone:
                if task := self._next(hand):
                    hand.tasks[task.number] = task
                    return task
                self._changed.wait()
        return None

    def answer(self, hand: WorkerLoad, number: int, answer: Answer) -> None:
        """A process has finished the task of this number.

        Raises:
          ValueError: one that it does not have.
        """
        with self._changed:
            task = hand.tasks.pop(number, None)
            if task is None:
                raise ValueError(f"an answer to task {number}, which nobody asked")
            hand.alone = False
            hand.answers += 1
            self._changed.notify_all()
        task.finish(answer)

    def mark_gone(self, hand: WorkerLoad) -> None:
        """A process is dead; answers of its that are under way still count until `take_back`."""
        with self._changed:
            hand.gone = True
            self._changed.notify_all()

    def take_back(self, hand: WorkerLoad | None, status: str) -> int:
        """Takes the tasks of a dead process (None if it was never ready); another is being started in its place.

        Returns how many are tried again. One under which a process has died before fails.
        """
        failed: list[Assignment] = []
        with self._changed:
            self._first_tried = True
            tasks = list(hand.tasks.values()) if hand else []
            if hand in self._hands:
                hand.tasks.clear()
                self._hands.remove(hand)
                self._starting += 1
            for task in tasks:
                task.deaths += 1
                (failed if task.deaths == 2 else self._suspects).append(task)
            self._changed.notify_all()
        for task in failed:
            task.finish(_failure(task, hand, status))
        return len(tasks) - len(failed)

    def retire(self, reason: str) -> None:
        """No process is started any more in the place of one; without any nothing goes on."""
        with self._changed:
            self._starting -= 1
            self._processes -= 1
            self._changed.notify_all()
        if not self._processes:
            self.fail(ReplicaError(f"no engine process is left: {reason}"))

    def fail(self, fault: ReplicaError) -> None:
        """Nothing goes on, if it has not ended before; all unfinished tasks raise `fault`."""
        with self._changed:
            if self.fault:
                return
            self.fault = fault
            tasks = [*self._waiting, *self._suspects, *(task for hand in self._hands for task in hand.tasks.values())]
            self._waiting.clear()
            self._suspects.clear()
            for hand in self._hands:
                hand.tasks.clear()
            self._changed.notify_all()
        for task in tasks:
            task.finish(fault)

    def _next(self, hand: WorkerLoad) -> Assignment | None:
        for queue in (self._suspects, self._waiting):
            while queue and queue[0].future.cancelled():
                queue.popleft()
        if hand.alone or len(hand.tasks) >= hand.room:
            return None
        if self._suspects and not hand.tasks:
            hand.alone = True
            return self._suspects.popleft()
        if self._suspects and self._is_emptied(hand):
            return None
        return self._waiting.popleft() if self._waiting else None

    def _is_emptied(self, hand: WorkerLoad) -> bool:
        return not self._starting and hand is self._hands[0] and not any(other.alone for other in self._hands)


def _failure(task: Assignment, hand: WorkerLoad | None, status: str) -> ImageError:
    if hand is not None and hand.hung:
        fault = f"the engine process hung while it had this image ({hand.hung}); one before had died or hung too"
        return ImageError(task.name, "timeout", fault)
    return ImageError(task.name, "process-died", f"the engine process died twice while it had this image ({status})")
