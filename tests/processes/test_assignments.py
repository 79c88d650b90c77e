"""Whatever children die, all work ends once, and only what kills fails."""

from __future__ import annotations

import random
import threading
import time
import types
from concurrent.futures import CancelledError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.processes.assignment import Assignment, WorkerLoad
from jaxphoton.processes.assignments import Assignments
from jaxphoton.processes.pipe import CANCEL
from jaxphoton.processes.supervisor import Supervisor
from tests.image.pools import S, until


class Died(Exception):
    """The failure of work that has killed two children."""


class Process(threading.Thread):
    """Answers what it has in a random order, and dies of `poison`, sometimes late. A new one follows."""

    def __init__(self, work: Assignments[Assignment], room: int, poison: set[int], seed: int, in_order: bool):
        super().__init__(daemon=True)
        self._work, self._room, self._poison, self._chance = work, room, poison, random.Random(seed)
        self._in_order, self.most = in_order, 0

    def run(self) -> None:
        while not self._work.fault:
            load = WorkerLoad(self._room)
            self._work.join(load)
            device = threading.Thread(target=self._answer, args=(load,), daemon=True)
            device.start()
            while self._work.take(load):
                self.most = max(self.most, len(load.tasks))
            load.gone = True
            device.join()
            self._work.take_back(load, lambda task: Died(task.name))

    def _answer(self, load: WorkerLoad[Assignment]) -> None:
        while not load.gone and not self._work.fault:
            tasks = list(load.tasks)
            if not tasks or self._chance.random() < 0.3:
                time.sleep(1e-4)
                continue
            number = tasks[0] if self._in_order else self._chance.choice(tasks)
            if number in self._poison:
                self._work.mark_gone(load)
            else:
                self._work.finish(load, load.tasks[number], number)


def put(work: Assignments[Assignment], number: int, **fields) -> Assignment:
    task = Assignment(name=f"image {number}", **fields)
    assert work.put(task)
    return task


@settings(max_examples=40)
@given(
    processes=st.integers(1, 4),
    room=st.integers(1, 6),
    count=st.integers(0, 60),
    poison=st.sets(st.integers(0, 59), max_size=6),
    seed=st.integers(0, 2**16),
    in_order=st.booleans(),
)
def test_only_those_that_kill_fail(processes, room, count, poison, seed, in_order):
    work = Assignments(processes, in_order=in_order, bound=1000)
    children = [Process(work, room, poison, seed + number, in_order) for number in range(processes)]
    for child in children:
        child.start()
    tasks = [put(work, number) for number in range(count)]
    for number, task in enumerate(tasks):
        error = task.future.exception(S)
        assert isinstance(error, Died) == (number in poison)
        assert error is not None or task.future.result() == task.number == number
    work.fail(RuntimeError("the end"))
    for child in children:
        child.join(S)
        assert child.most <= room


def test_suspects_are_tried_alone_and_before_others():
    work, first, second = Assignments(2), WorkerLoad(2), WorkerLoad(2)
    work.join(first)
    for number in range(4):
        put(work, number)
    assert [work.take(first).number for _ in range(2)] == [0, 1]
    work.mark_gone(first)
    assert work.take(first) is None and work.take_back(first, lambda task: Died()) == 2
    work.join(second)
    taken: list[int] = []

    def take():
        while task := work.take(second):
            taken.append(task.number)

    threading.Thread(target=take, daemon=True).start()
    for number in (0, 1):
        until(lambda number=number: taken[-1:] == [number], "a suspect is tried")
        time.sleep(0.02)  # time for others to come, wrongly
        assert list(second.tasks) == [number]
        work.finish(second, second.tasks[number], number)
    until(lambda: taken == [0, 1, 2, 3], "the others follow, together")
    work.fail(RuntimeError("the end"))


def test_where_children_work_in_order_the_oldest_is_to_blame_and_comes_first_again():
    work, first, second = Assignments(1, in_order=True, bound=9), WorkerLoad(3), WorkerLoad(2)
    work.join(first)
    tasks = [put(work, number) for number in range(4)]
    for _ in range(3):
        work.take(first)
    work.mark_gone(first)
    assert work.take_back(first, lambda task: Died()) == 3
    assert [task.losses for task in tasks] == [1, 0, 0, 0]
    work.join(second)
    assert [work.take(second).number for _ in range(2)] == [0, 1]
    work.mark_gone(second)
    assert work.take_back(second, lambda task: Died()) == 1
    assert isinstance(tasks[0].future.exception(S), Died) and not tasks[1].future.done()


def test_no_child_is_given_more_while_another_has_nothing():
    work, busy, idle = Assignments(2, bound=9), WorkerLoad(2), WorkerLoad(2)
    work.join(busy)
    tasks = [put(work, number) for number in range(2)]
    assert work.take(busy) is tasks[0]
    work.join(idle)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(work.take(busy)), daemon=True)
    thread.start()
    assert work.take(idle) is tasks[1] and not taken
    work.fail(RuntimeError("the end"))
    thread.join(S)
    assert taken == [None]


def test_a_higher_priority_is_sent_first_and_what_is_late_is_taken_out():
    work, load = Assignments(1, bound=9), WorkerLoad(9)
    past = time.monotonic() - 1
    priorities = [0, 5, 0, 5, -1, 9]
    tasks = [put(work, number, priority=priority) for number, priority in enumerate(priorities)]
    late = put(work, 6, priority=3, deadline=past)
    assert work.expire() == [late] and work.expire() == []
    work.join(load)
    assert [work.take(load) for _ in tasks] == [tasks[index] for index in (5, 1, 3, 0, 2, 4)]


def test_what_is_given_up_goes_at_once_where_it_waits_and_through_its_child_where_one_has_it():
    work, load = Assignments(1, bound=9), WorkerLoad(2)
    work.join(load)
    sent, waits = put(work, 0), put(work, 1)
    assert work.take(load) is sent
    waits.cancel()
    assert waits.future.cancelled()
    for _ in range(3):
        sent.cancel()
    assert not sent.future.done() and work.take(load) is sent and sent.given_up
    work.finish(load, sent, CancelledError())
    assert sent.future.cancelled()
    sent.cancel()
    lost = put(work, 2)
    assert work.take(load) is lost
    lost.cancel()
    work.mark_gone(load)
    assert work.take_back(load, lambda task: Died()) == 0 and lost.future.cancelled()


def test_what_was_delivered_in_part_is_not_tried_again():
    work, load = Assignments(1, bound=9), WorkerLoad(2)
    work.join(load)
    begun, other = put(work, 0), put(work, 1)
    assert [work.take(load), work.take(load)] == [begun, other]
    begun.begun = True
    work.mark_gone(load)
    assert work.take_back(load, lambda task: Died(task.name)) == 1
    assert isinstance(begun.future.exception(S), Died) and not other.future.done()


def test_the_bound_counts_what_is_unfinished():
    work = Assignments(1, bound=1)
    first = put(work, 0)
    assert not work.put(Assignment(), wait=False)
    assert not work.put(Assignment(deadline=time.monotonic() + 0.01))
    first.future.cancel()
    second = put(work, 1)
    work.fail(RuntimeError("the end"))
    assert str(second.future.exception(S)) == "the end"
    with pytest.raises(RuntimeError, match="the end"):
        work.put(Assignment())


def test_what_was_given_up_before_it_could_be_sent_ends_too():
    work, load = Assignments(1, bound=9), WorkerLoad(2)
    work.join(load)
    unsent = put(work, 0)
    assert work.take(load) is unsent
    unsent.cancel()
    work.return_unsent(load, unsent)
    assert unsent.future.cancelled()


def test_a_child_hears_of_work_before_it_hears_that_it_is_given_up():
    class Feeding(Assignments[Assignment]):
        def take(self, load):
            task = super().take(load)
            if task and not task.given_up:
                task.cancel()
            return task

    said = []

    def send(message, data=None):
        said.append(message)
        if len(said) == 2:
            work.mark_gone(load)

    work, load = Feeding(1, bound=9), WorkerLoad(2)
    work.join(load)
    number = put(work, 0).number
    feeding = types.SimpleNamespace(work=work, order=lambda task: ({"order": task.name}, None))
    Supervisor._feed(feeding, types.SimpleNamespace(send=send, alive=lambda: True), load)  # type: ignore[arg-type]
    assert said == [{"order": "image 0", "number": number}, {"number": number, CANCEL: True}]


@pytest.mark.parametrize("deadline", [float("inf"), 1e300])
def test_a_deadline_may_be_as_far_as_one_likes(deadline, monkeypatch):
    work = Assignments(1, bound=1)
    full = put(work, 0)

    def wait(seconds):
        assert seconds <= threading.TIMEOUT_MAX
        full.future.cancel()  # there is room from here on

    monkeypatch.setattr(work._changed, "wait", wait)
    assert work.put(Assignment(deadline=deadline))
