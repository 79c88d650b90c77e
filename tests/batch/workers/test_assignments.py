"""Whatever processes die, every job ends once, and only those that kill fail."""

from __future__ import annotations

import random
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.batch.workers.assignments import Assignments, ReplicaError, WorkerLoad
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Ask, Job
from tests.image.pools import S, until


class Process(threading.Thread):
    """Answers what it has in a random order, and dies of `poison`, sometimes late. A new one follows."""

    def __init__(self, board: Assignments, room: int, poison: set[int], seed: int):
        super().__init__(daemon=True)
        self._board, self._room, self._poison, self._chance = board, room, poison, random.Random(seed)
        self.most = 0

    def run(self) -> None:
        while not self._board.fault:
            hand = WorkerLoad(self._room)
            self._board.join(hand)
            device = threading.Thread(target=self._work, args=(hand,), daemon=True)
            device.start()
            while self._board.take(hand):
                self.most = max(self.most, len(hand.tasks))
            hand.gone = True
            device.join()
            self._board.take_back(hand, "signal 9")

    def _work(self, hand: WorkerLoad) -> None:
        while not hand.gone and not self._board.fault:
            tasks = list(hand.tasks)
            if not tasks or self._chance.random() < 0.3:
                time.sleep(1e-4)
                continue
            number = self._chance.choice(tasks)
            if number in self._poison:
                self._board.mark_gone(hand)
            else:
                self._board.answer(hand, number, Answer(number))


@settings(max_examples=40)
@given(
    processes=st.integers(1, 4),
    room=st.integers(1, 6),
    count=st.integers(0, 60),
    poison=st.sets(st.integers(0, 59), max_size=6),
    seed=st.integers(0, 2**16),
)
def test_only_those_that_kill_fail(processes, room, count, poison, seed):
    board = Assignments(processes)
    lanes = [Process(board, room, poison, seed + number) for number in range(processes)]
    for lane in lanes:
        lane.start()
    tasks = [board.put(Job(number, b"", (Ask("caption"),), name=f"image {number}")) for number in range(count)]
    for number, task in enumerate(tasks):
        error = task.future.exception(S)
        assert isinstance(error, ImageError) == (number in poison)
        assert error is None or error.reason == "process-died"
        assert error is not None or task.future.result().key == number
    board.fail(ReplicaError("the end"))
    for lane in lanes:
        lane.join(S)
        assert lane.most <= room


def test_suspects_are_tried_alone_and_before_others():
    board, first, second = Assignments(2), WorkerLoad(2), WorkerLoad(2)
    board.join(first)
    for number in range(4):
        board.put(Job(number, b"", (Ask("caption"),)))
    assert [board.take(first).number for _ in range(2)] == [0, 1]
    board.mark_gone(first)
    assert board.take(first) is None and board.take_back(first, "signal 9") == 2
    board.join(second)
    taken: list[int] = []

    def take():
        while task := board.take(second):
            taken.append(task.number)

    threading.Thread(target=take, daemon=True).start()
    for number in (0, 1):
        until(lambda number=number: taken[-1:] == [number], "a suspect is tried")
        time.sleep(0.02)  # time for others to come, wrongly
        assert list(second.tasks) == [number]
        board.answer(second, number, Answer(number))
    until(lambda: taken == [0, 1, 2, 3], "the others follow, together")
    board.fail(ReplicaError("the end"))
