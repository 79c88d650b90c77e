"""Work among child processes: who has what, and what becomes of what those had that died."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from itertools import count
from typing import Any, Generic

from jaxphoton.processes.assignment import A, WorkerLoad


class Assignments(Generic[A]):
    """Hands work out, and takes it back from children that died. A second death ends the work it is blamed on.

    Where children work in order, the oldest of what one had is to blame, and the rest was not begun. Elsewhere nobody
    knows what killed it. So each becomes a suspect, tried again with nothing beside it: whatever child dies then, dies
    of that one, and nothing else fails for its company. New children try suspects first; where none is being started,
    one that runs is emptied for them.

    Attributes:
      room: of each child; 0 until the first is ready.
      bound: assignments unfinished at most; 0 until the first is ready, where none was given.
      tried: a child has started, or failed to.
      fault: why nothing goes on; None while it does.
    """

    def __init__(self, children: int, *, in_order: bool = False, bound: int | None = None):
        """
        Args:
          bound: assignments unfinished at most; by default what all children take at once, and one more.
        """
        # Condition's own lock may be taken twice: a finalizer may end this from wherever memory is collected.
        self._changed = threading.Condition()
        self._waiting: deque[A] = deque()
        self._suspects: deque[A] = deque()
        self._loads: list[WorkerLoad[A]] = []
        self._numbers = count()
        self._in_order = in_order
        self.bound = bound or 0
        self._children = self._starting = children
        self.tried = False
        self._unfinished = 0
        self.room = 0
        self.fault: Exception | None = None

    def put(self, task: A, wait: bool = True) -> bool:
        """Adds work once there is room; False where there is none, or none before its deadline.

        Raises: `fault`, if nothing goes on.
        """
        with self._changed:
            if wait:
                left = threading.TIMEOUT_MAX if task.deadline is None else task.deadline - time.monotonic()
                seconds = min(max(0.0, left), threading.TIMEOUT_MAX)
                self._changed.wait_for(lambda: self.fault or self._unfinished < self.bound, seconds)
            if self.fault:
                raise type(self.fault)(*self.fault.args)
            if self._unfinished >= self.bound:
                return False
            task.number, task.owner = next(self._numbers), self
            self._unfinished += 1
            task.future.add_done_callback(self._finished)
            place = len(self._waiting)
            while place and self._waiting[place - 1].priority < task.priority:
                place -= 1
            self._waiting.insert(place, task)
            self._changed.notify_all()
        return True

    def take(self, load: WorkerLoad[A]) -> A | None:
        """The next work for a child, or what it has and is to give up; None when it is dead or nothing goes on."""
        with self._changed:
            while not self.fault and not load.gone:
                if load.cancelled:
                    return load.cancelled.popleft()
                if task := self._next(load):
                    load.tasks[task.number] = task
                    return task
                self._changed.wait()
        return None

    def return_unsent(self, load: WorkerLoad[A], task: A) -> None:
        """The child was found dead before it was sent this."""
        with self._changed:
            if load.tasks.pop(task.number, None) is None:
                return
            if not task.given_up:
                self._waiting.appendleft(task)
                return
        task.finish(CancelledError())

    def finish(self, load: WorkerLoad[A], task: A, outcome: Any) -> None:
        """A child has finished work that it has."""
        with self._changed:
            if load.tasks.pop(task.number, None) is None:  # nothing goes on
                return
            load.alone = False
            load.finished += 1
            self._changed.notify_all()
        task.finish(outcome)

    @property
    def ready(self) -> int:
        """Children that take work."""
        return sum(not load.gone for load in self._loads)

    @property
    def unfinished(self) -> int:
        """Assignments that wait, or that a child has."""
        return self._unfinished

    @property
    def waits(self) -> bool:
        """Whether there is something for a child to do."""
        return bool(self._waiting or self._suspects)

    def oldest(self, load: WorkerLoad[A]) -> A | None:
        """Of what a child has."""
        with self._changed:
            return next(iter(load.tasks.values()), None)

    def cancel(self, task: A) -> None:
        """See `Assignment.cancel`."""
        with self._changed:
            load = next((load for load in self._loads if task.number in load.tasks), None)
            if load is not None and not task.given_up:
                load.cancelled.append(task)
            task.given_up = True
            self._changed.notify_all()
        if load is None:
            task.future.cancel()

    def expire(self) -> list[A]:
        """Takes out what no child has and whose deadline has passed."""
        now = time.monotonic()
        late: list[A] = []
        with self._changed:
            for queue in (self._suspects, self._waiting):
                late += (task for task in queue if task.deadline is not None and task.deadline <= now)
            self._drop(late)
        return late

    def join(self, load: WorkerLoad[A]) -> None:
        """A child is ready."""
        with self._changed:
            self._loads.append(load)
            self._starting -= 1
            self.tried = True
            self.room = load.room
            self.bound = self.bound or (self._children + 1) * load.room
            self._changed.notify_all()

    def mark_gone(self, load: WorkerLoad[A]) -> None:
        """A child is dead; what it has said before still counts until `take_back`."""
        with self._changed:
            load.gone = True
            self._changed.notify_all()

    def take_back(self, load: WorkerLoad[A] | None, failure: Callable[[A], Exception]) -> int:
        """Takes the work of a dead child (None if it was never ready); another is being started in its place.

        Returns how many are tried again. The others end with `failure`.
        """
        ended: list[tuple[A, Exception]] = []
        with self._changed:
            self.tried = True
            tasks: list[A] = []
            if load in self._loads:
                tasks = list(load.tasks.values())
                load.tasks.clear()
                self._loads.remove(load)
                self._starting += 1
            again: list[A] = []
            for place, task in enumerate(tasks):
                task.losses += not (self._in_order and place)
                if task.given_up or task.future.cancelled():
                    ended.append((task, CancelledError()))
                elif task.begun or task.losses == 2:
                    ended.append((task, failure(task)))
                else:
                    again.append(task)
            if self._in_order:
                self._waiting.extendleft(reversed(again))
            else:
                self._suspects += again
            self._changed.notify_all()
        for task, outcome in ended:
            task.finish(outcome)
        return len(again)

    def fail_waiting(self, failure: Callable[[A], Exception]) -> None:
        """Where no child is ready, ends what waits for one."""
        with self._changed:
            if self._loads:
                return
            tasks = [*self._waiting, *self._suspects]
            self._drop(tasks)
        for task in tasks:
            task.finish(failure(task))

    def retire(self, fault: Exception) -> None:
        """No child is started any more in the place of one; without any nothing goes on: `fault`."""
        with self._changed:
            self._starting -= 1
            self._children -= 1
            self._changed.notify_all()
        if not self._children:
            self.fail(fault)

    def fail(self, fault: Exception) -> None:
        """Nothing goes on, if it has not ended before; all that is unfinished ends with `fault`."""
        with self._changed:
            if self.fault:
                return
            self.fault = fault
            tasks = [*self._waiting, *self._suspects, *(task for load in self._loads for task in load.tasks.values())]
            self._drop(tasks)
            for load in self._loads:
                load.tasks.clear()
            self._changed.notify_all()
        for task in tasks:
            task.finish(fault)

    def wait_for(self, what: Callable[[], object], seconds: float | None = None) -> None:
        """Waits until `what` is true, or nothing goes on."""
        with self._changed:
            self._changed.wait_for(lambda: what() or self.fault, seconds)

    def _next(self, load: WorkerLoad[A]) -> A | None:
        if load.alone or len(load.tasks) >= load.room:
            return None
        if self._suspects and not load.tasks and (task := self._claimed(self._suspects)):
            load.alone = True
            return task
        if self._suspects and self._is_emptied(load):
            return None
        # Not beside other work where children without any will have it.
        if load.tasks and len(self._waiting) <= sum(not (other.tasks or other.gone) for other in self._loads):
            return None
        return self._claimed(self._waiting)

    def _claimed(self, queue: deque[A]) -> A | None:
        while queue:
            task = queue.popleft()
            if task.claims and not (task.future.running() or task.future.done()):
                task.future.set_running_or_notify_cancel()
            if not (task.given_up or task.future.cancelled()):
                task.sent = False
                return task
        return None

    def _is_emptied(self, load: WorkerLoad[A]) -> bool:
        return not self._starting and load is self._loads[0] and not any(other.alone for other in self._loads)

    def _drop(self, tasks: list[A]) -> None:
        if tasks:
            dropped = set(map(id, tasks))
            self._waiting = deque(task for task in self._waiting if id(task) not in dropped)
            self._suspects = deque(task for task in self._suspects if id(task) not in dropped)

    def _finished(self, future: Future[Any]) -> None:
        with self._changed:
            self._unfinished -= 1
            if future.cancelled():
                self._drop([task for task in (*self._waiting, *self._suspects) if task.future is future])
            self._changed.notify_all()
