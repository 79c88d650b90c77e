"""The dispatcher between jobs and an engine: every job is answered once, whatever comes first."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.dispatcher import Dispatcher

ROOM, MOST = 5, 4
S = 60


@dataclass(eq=False)
class Request:
    key: int
    cancelled: list[int]
    future: Future = field(default_factory=Future)

    def cancel(self):
        self.cancelled.append(self.key)


class Harness:
    """Finishes one thing that is under way whenever it is told to, in an order that the test chooses."""

    def __init__(self, choose=lambda things: 0, broken: Collection[int] = (), refused: Collection[int] = ()):
        self.choose, self.broken, self.refused = choose, frozenset(broken), frozenset(refused)
        self.open: list[Future] = []
        self.keys: dict[Future, int] = {}
        self.cancelled: list[int] = []
        self.read = self.answered = self.most_ahead = self.most_requests = self.requests = 0
        self.lock = threading.Condition()

    def jobs(self, asks):
        for key, count in enumerate(asks):
            self.read += 1
            self.most_ahead = max(self.most_ahead, self.read - self.answered)
            yield Job(key, f"{key}.png", (Ask("caption"),) * count)

    def _open(self, key, future):
        with self.lock:
            self.open.append(future)
            self.keys[future] = key
            self.lock.notify()

    def prepare(self, job):
        future = Future()
        self._open(job.key, future)
        return job.asks, future

    def start(self, job, prepared, picture):
        assert picture == job.key and prepared is job.asks
        if job.key in self.refused:
            raise ValueError("refused")
        requests = [Request(job.key, self.cancelled) for _ in job.asks]
        with self.lock:
            self.requests += len(requests)
        if len(requests) <= MOST:
            self.most_requests = max(self.most_requests, self.requests)
        for request in requests:
            request.future.add_done_callback(self._left)
            self._open(job.key, request.future)
        return requests

    def _left(self, _):
        with self.lock:
            self.requests -= 1

    def answer(self, job, picture, requests):
        return Answer(job.key, tuple(request.future.result() for request in requests))

    def dispatcher(self, jobs):
        return Dispatcher(jobs, self, ROOM, MOST)

    def finish_one(self):
        with self.lock:
            if not self.lock.wait_for(lambda: self.open, 0.05):
                return
            future = self.open.pop(self.choose(len(self.open)))
        key = self.keys[future]
        if not future.set_running_or_notify_cancel():
            return  # the batch was left meanwhile
        if key in self.broken:
            self.broken -= {key}
            future.set_exception(OSError("broken"))
        else:
            future.set_result(key)

    def run(self, dispatcher) -> list[Answer]:
        done, answers = threading.Event(), []

        def drive():
            while not done.is_set():
                self.finish_one()

        driver = threading.Thread(target=drive)
        driver.start()
        try:
            for answer in dispatcher.answers():
                self.answered += 1
                answers.append(answer)
        finally:
            done.set()
            driver.join(S)
        return answers


@given(st.lists(st.integers(1, 6), max_size=25), st.integers(0, 2**32), st.data())
def test_every_job_is_answered_once_in_any_order(asks, seed, data):
    numbers = range(len(asks))
    broken, refused = (data.draw(st.sets(st.sampled_from(numbers)) if asks else st.just(set())) for _ in range(2))
    harness = Harness(random.Random(seed).randrange, broken, refused)
    answers = harness.run(harness.dispatcher(harness.jobs(asks)))
    assert {answer.key for answer in answers} == set(numbers) and len(answers) == len(numbers)
    for answer in answers:
        if answer.key in broken | refused:
            assert isinstance(answer.error, (OSError, ValueError)) and not answer.results
        else:
            assert answer.results == (answer.key,) * asks[answer.key] and answer.error is None
    assert harness.most_ahead <= ROOM + 1
    if not broken:
        assert harness.most_requests <= MOST


def test_an_exception_of_the_jobs_comes_after_the_answers():
    def jobs(harness):
        yield from harness.jobs([1, 2])
        raise LookupError("the source is gone")

    harness, answers = Harness(), []
    dispatcher = harness.dispatcher(jobs(harness))
    with pytest.raises(LookupError, match="the source is gone"):
        list(_collect(harness, dispatcher, answers))
    assert sorted(answers) == [0, 1]


def _collect(harness, dispatcher, answers):
    done = threading.Event()

    def drive():
        while not done.is_set():
            harness.finish_one()

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        for answer in dispatcher.answers():
            answers.append(answer.key)
            yield answer
    finally:
        done.set()
        driver.join(S)


def test_leaving_early_gives_up_what_is_under_way_and_closes_the_jobs():
    harness, closed = Harness(), threading.Event()

    def jobs():
        try:
            yield from harness.jobs([1] * 1000)
        finally:
            closed.set()

    dispatcher = harness.dispatcher(jobs())
    answers = _collect(harness, dispatcher, [])
    next(answers)
    answers.close()
    assert closed.wait(S)
    assert harness.read <= 2 + 2 * ROOM


@pytest.mark.parametrize(
    ("asks", "error", "fault"),
    [
        ((), ValueError, "at least one ask"),
        ([], ValueError, "at least one ask"),
        (iter(()), ValueError, "at least one ask"),
        (Ask("caption"), TypeError, "a tuple of Ask, even if it is one"),
        (("caption",), TypeError, "a tuple of Ask, not of str"),
    ],
)
def test_a_job_that_asks_nothing_is_refused_where_it_is_made(asks, error, fault):
    with pytest.raises(error, match=fault):
        Job(0, "0.png", asks)


def test_a_wrong_job_ends_the_jobs_and_not_the_answers():
    harness, answers = Harness(), []

    def jobs():
        yield from harness.jobs([1, 2])
        yield Job(2, "2.png", ())

    with pytest.raises(ValueError, match="at least one ask"):
        list(_collect(harness, harness.dispatcher(jobs()), answers))
    assert sorted(answers) == [0, 1]


def test_a_dispatcher_that_is_stopped_raises_although_its_jobs_never_end():
    harness, waiting, go_on = Harness(), threading.Event(), threading.Event()

    def jobs():
        yield from harness.jobs([1])
        waiting.set()
        go_on.wait(S)

    dispatcher = harness.dispatcher(jobs())
    answers = _collect(harness, dispatcher, [])
    assert next(answers).key == 0 and waiting.wait(S)
    dispatcher.stop(LookupError("stopped"))
    with pytest.raises(LookupError, match="stopped"):
        next(answers)
    go_on.set()


class Unreadable:
    def __iter__(self):
        raise LookupError("the source is gone")


@pytest.mark.parametrize(
    ("after", "error", "fault"),
    [
        (None, TypeError, "expected a Job, not NoneType"),
        ("2.png", TypeError, "expected a Job, not str"),
        (Ask("caption"), TypeError, "expected a Job, not Ask"),
    ],
)
def test_what_is_no_job_ends_the_jobs_with_an_error(after, error, fault):
    harness, answers = Harness(), []
    dispatcher = harness.dispatcher([*harness.jobs([1, 2]), after, *harness.jobs([1])])
    with pytest.raises(error, match=fault):
        list(_collect(harness, dispatcher, answers))
    assert sorted(answers) == [0, 1]


@pytest.mark.parametrize(("jobs", "error"), [(5, TypeError), (None, TypeError), (Unreadable(), LookupError)])
def test_jobs_that_cannot_be_read_are_an_error(jobs, error):
    with pytest.raises(error):
        list(Harness().dispatcher(jobs).answers())


class Image:
    """Stands for pixels in memory; can be watched."""


@pytest.mark.parametrize("leaves", [False, True])
def test_no_answered_image_waits_for_a_collection_of_garbage(leaves):
    harness, watched = Harness(broken=frozenset({1}), refused=frozenset({2})), []

    def jobs():
        for job in harness.jobs([1, 1, 2, 1, 3, 1]):
            image = Image()
            watched.append(weakref.ref(image))
            yield Job(job.key, image, job.asks)
            del image

    dispatcher = harness.dispatcher(jobs())
    gone = weakref.ref(dispatcher)
    answers = _collect(harness, dispatcher, [])
    gc.disable()
    try:
        next(answers)
        if leaves:
            answers.close()
        assert [None for _ in answers] == [None] * (0 if leaves else 5)
        del dispatcher, answers
        for thread in threading.enumerate():
            if thread.name == "jaxphoton-jobs":
                thread.join(S)
        harness.open.clear()
        harness.keys.clear()
        assert gone() is None and [image for image in watched if image()] == []
    finally:
        gc.enable()
