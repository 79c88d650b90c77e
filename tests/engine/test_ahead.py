"""Images encoded before their requests' turn: whose, in which thread, how often; what becomes of those not needed."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxphoton.engine.ahead import EncodeAhead
from jaxphoton.engine.engine import Engine
from jaxphoton.engine.launcher import Launcher
from tests.engine.blocking import BlockingCallback
from tests.engine.comparison import Comparison
from tests.engine.harness import Harness, check_clean, image
from tests.engine.harness import request as fake_request
from tests.engine.tiny import one_image, request, sequence_of

PATIENCE = 300.0


class Encoded:
    """What an encoding leaves."""


class Encoder:
    """Encodes, and remembers of whom and where."""

    def __init__(self):
        self.calls, self.threads = [], []

    def __call__(self, sequence) -> Encoded:
        self.calls.append(sequence)
        self.threads.append(threading.current_thread().name)
        if sequence.request.image is None:
            raise ValueError("no image")
        return Encoded()


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def ahead(encoder):
    ahead = EncodeAhead(encoder)
    yield ahead
    ahead.close()


def test_the_next_is_encoded_once_and_taken_once(encoder, ahead):
    sequence = sequence_of(request(picture=0))
    ahead.follow(sequence), ahead.follow(sequence)
    assert isinstance(ahead.take(sequence), Encoded) and ahead.take(sequence) is None
    assert encoder.calls == [sequence] and encoder.threads != [threading.current_thread().name]


def test_another_head_of_the_queue_takes_the_place_of_the_one_before(encoder, ahead):
    first, second = sequence_of(request(picture=0)), sequence_of(request(picture=1))
    ahead.follow(first), ahead.follow(second)
    assert ahead.take(first) is None and isinstance(ahead.take(second), Encoded)


def test_a_fault_is_raised_where_the_image_is_taken_and_there_alone(ahead):
    wrong, right = sequence_of(request()), sequence_of(request(picture=1))
    ahead.follow(wrong)
    with pytest.raises(ValueError, match="no image"):
        ahead.take(wrong)
    ahead.follow(right)
    assert isinstance(ahead.take(right), Encoded)


def test_an_interpreter_that_ends_takes_no_image(ahead, monkeypatch):
    def refuse(self, *_):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    sequence = sequence_of(request(picture=0))
    ahead.follow(sequence)
    assert ahead.take(sequence) is None


def test_of_a_request_that_is_given_up_nothing_is_kept():
    made = []

    def encode(sequence):
        made.append(weakref.ref(encoded := Encoded()))
        return encoded

    ahead, sequence = EncodeAhead(encode), sequence_of(request(picture=0))
    held = weakref.ref(sequence)
    ahead.follow(sequence), ahead.follow(None)
    del sequence
    ahead.close()  # waits for the thread
    gc.collect()
    assert held() is None and all(encoded() is None for encoded in made)


def test_the_pipeline_says_who_is_next_before_it_waits():
    harness = Harness(rows=1, vision=((1, 3),))
    running, asked, text = (harness.submit(fake_request(picture=picture)) for picture in (image(1), image(2), None))
    harness.tick()
    assert harness.events == [("launch", 0)] and harness.device.ahead == [asked.request.number]
    harness.run()
    for sequence in (running, asked, text):
        harness.check_answer(sequence)
    assert set(harness.device.ahead) == {asked.request.number, None}


def test_an_image_that_others_have_brought_is_not_encoded_again():
    harness = Harness(rows=1)
    harness.submit(fake_request(picture=image(1))), harness.submit(fake_request(picture=image(1)))
    harness.run()
    assert set(harness.device.ahead) == {None}


@pytest.mark.parametrize("failing", [None, 2], ids=["", "it fails"])
def test_while_one_runs_the_next_is_encoded_in_a_thread_of_its_own(programs, oracle, monkeypatch, failing):
    encode, threads, before = Launcher.encode, list[str](), set(threading.enumerate())

    def spied(self, key, *arrays):
        threads.append(threading.current_thread().name)
        if len(threads) - 1 == failing:
            raise RuntimeError("INTERNAL: injected")
        return encode(self, key, *arrays)

    monkeypatch.setattr(Launcher, "encode", spied)
    engine = Engine(one_image(programs))
    try:
        callback, comparison = BlockingCallback(), Comparison(oracle)
        submissions = [engine.submit(request(picture=0, temperature=0.0), callback)]
        callback.reached()  # so that all the others wait
        submissions += [engine.submit(request(picture=picture, seed=9)) for picture in (1, 2, 1, 0)]
        callback.release()
        for submission in submissions:
            generation = submission.future.result(PATIENCE)
            comparison.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)
        assert engine.drain(PATIENCE)
        check_clean(engine.scheduler)
    finally:
        engine.shutdown(wait=False)
    names = Counter(name.rpartition("_")[0] or name for name in threads)
    if failing is None:  # each of the three pictures once; two requests could be admitted at once
        assert names == {"jaxphoton-engine": 2, "jaxphoton-encoder": 1}
    left = set(threading.enumerate()) - before  # engines of other tests may be there all the time
    assert not any(thread.name.startswith("jaxphoton-encoder") for thread in left)


def test_where_a_launch_takes_several_images_none_is_encoded_ahead(programs):
    assert not programs.encodes_ahead and one_image(programs).encodes_ahead
