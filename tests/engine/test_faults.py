"""A device error costs a recomputation, not a request; two under the same request end it, and only it. What the host
cannot make of a request costs that request alone."""

from __future__ import annotations

import dataclasses
import weakref

import numpy as np
import pytest

from jaxphoton.engine.engine import Engine
from jaxphoton.image.crops import Crops
from jaxphoton.image.prepare import Prepared
from jaxphoton.requests.errors import EngineError
from tests.engine.blocking import BlockingCallback
from tests.engine.comparison import Comparison
from tests.engine.harness import check_clean
from tests.engine.tiny import CONFIG, one_image, pictures, request, with_engine

PATIENCE = 300.0

REQUESTS = [
    request(grammar, 3 + seed, seed % 4 if seed % 4 < 3 else None, seed=seed, temperature=0.7, max_tokens=10)
    for seed, grammar in enumerate(["text", "detect", "reasoning", "point"] * 3)
]


class Faults:
    """Makes calls of one of a device's methods fail, counted from 0."""

    def __init__(self, monkeypatch, engine: Engine, method: str, failing: set[int]):
        self.calls, self.failing = -1, failing
        self._original = getattr(engine.pipeline.device, method)
        monkeypatch.setattr(engine.pipeline.device, method, self)

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls in self.failing:
            raise RuntimeError("INTERNAL: injected")
        return self._original(*arguments)


@pytest.fixture(params=["depth 1", "depth 2", "encoded ahead"])
def engine(programs, request):
    programs = one_image(programs) if request.param == "encoded ahead" else programs
    engine = Engine(with_engine(programs, depth=1 if request.param == "depth 1" else 2, max_waiting=64))
    yield engine
    engine.shutdown(wait=False)
    check_clean(engine.scheduler)


@pytest.mark.parametrize("method", ["prefill", "step", "fetch"])
@pytest.mark.parametrize("call", [0, 1, 3])
def test_one_failure_loses_nothing(engine, oracle, monkeypatch, method, call):
    faults = Faults(monkeypatch, engine, method, {call})
    submissions = [engine.submit(r) for r in REQUESTS]
    comparison = Comparison(oracle)
    for submission in submissions:
        generation = submission.future.result(PATIENCE)
        comparison.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)
    assert faults.calls > call
    assert not comparison.near_ties


def test_two_failures_in_a_row_end_those_that_ran_and_no_others(engine, oracle, monkeypatch):
    Faults(monkeypatch, engine, "fetch", {2, 3})
    submissions = [engine.submit(r) for r in REQUESTS]
    comparison, lost = Comparison(oracle), 0
    for submission in submissions:
        error = submission.future.exception(PATIENCE)
        if error is None:
            generation = submission.future.result()
            comparison.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)
        else:
            lost += 1
            assert isinstance(error, EngineError) and "failed twice" in str(error) and "injected" in str(error)
    assert 0 < lost <= engine.programs.engine.max_rows
    after = engine.submit(REQUESTS[0]).future.result(PATIENCE)
    comparison.compare(REQUESTS[0], list(after.tokens), after.finish_reason)


def test_cancelling_between_failures_leaves_nothing_behind(engine, monkeypatch):
    Faults(monkeypatch, engine, "step", {1, 4, 9})
    submissions = [engine.submit(r) for r in REQUESTS * 2]
    for submission in submissions[::3]:
        engine.cancel(submission)
    assert engine.drain(PATIENCE)
    assert all(submission.future.done() for submission in submissions)


class WrongMask:
    """A constraint of another vocabulary: its masks have the wrong width, from token number `after` on."""

    def __init__(self, after: int):
        self.left = after

    def mask(self):
        words = -(-CONFIG.text.vocab_size // 32)
        return np.full(words if self.left else 1, 0xFFFFFFFF, np.uint32)  # NumPy would stretch a single word

    def accept(self, token):
        self.left -= 1


def bad_crops(kind: str) -> Prepared:
    good = pictures()[0].crops
    pixels = {
        "size": np.zeros((1, 5, 5, 3), np.uint8),
        "stretched": np.zeros((1, 1, 1, 3), np.uint8),
        "dtype": good.pixels.astype(np.float32),
        "tiling": good.pixels,
    }[kind]
    return Prepared(Crops(pixels, (1, 2) if kind == "tiling" else good.tiling), kind.encode(), (9, 11))


@pytest.mark.parametrize("kind", ["mask at once", "mask later", "size", "stretched", "dtype", "tiling"])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_what_the_host_cannot_pack_is_the_fault_of_its_request_alone(engine, oracle, caplog, kind, place):
    if kind.startswith("mask"):
        after = 0 if kind == "mask at once" else 2
        wrong = dataclasses.replace(request("text", 5, 0, max_tokens=10), constraint=lambda: WrongMask(after))
    else:
        wrong = dataclasses.replace(request("text", 5), image=bad_crops(kind))
    asked = [*REQUESTS[:place], wrong, *REQUESTS[place:]]
    callback = BlockingCallback()
    first = engine.submit(request(max_tokens=60, temperature=0.0), callback)
    callback.reached()  # so that all the others are admitted together
    submissions = [engine.submit(each) for each in asked]
    callback.release()
    with pytest.raises(ValueError, match="mask must be uint32" if kind.startswith("mask") else "must be uint8"):
        submissions.pop(place).future.result(PATIENCE)
    comparison = Comparison(oracle)
    for submission in (first, *submissions):
        generation = submission.future.result(PATIENCE)
        comparison.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)
    assert not comparison.near_ties and "starting over" not in caplog.text
    assert engine.metrics().set_back == 0


def test_a_picture_whose_crops_fail_leaves_no_prefix_behind(engine, oracle):
    """Two requests about pictures of one digest, of which the first brings crops that cannot be packed."""
    wrong = dataclasses.replace(REQUESTS[0], image=dataclasses.replace(bad_crops("size"), digest=pictures()[0].digest))
    callback = BlockingCallback()
    engine.submit(request(max_tokens=20, temperature=0.0), callback)
    callback.reached()
    failing, good = engine.submit(wrong), engine.submit(REQUESTS[0])
    callback.release()
    with pytest.raises(ValueError, match="must be uint8"):
        failing.future.result(PATIENCE)
    generation, comparison = good.future.result(PATIENCE), Comparison(oracle)
    comparison.compare(REQUESTS[0], list(generation.tokens), generation.finish_reason)
    assert good.metrics.cached_tokens == 0 and not comparison.near_ties


def test_after_a_device_error_nothing_holds_the_lost_state(engine, monkeypatch):
    """The pool is made again: what the error's frames had of the old one would not fit beside it."""
    device, held = engine.pipeline.device, []

    def step(plan):
        cache = device.launch.cache  # a local of a frame that the error comes through
        held.append(weakref.ref(cache.k))
        raise RuntimeError("INTERNAL: injected")

    original = device.reset

    def reset():
        device.launch.close()
        assert held[-1]() is None
        monkeypatch.undo()
        original()

    monkeypatch.setattr(device, "step", step)
    monkeypatch.setattr(device, "reset", reset)
    assert engine.submit(REQUESTS[0]).future.result(PATIENCE).tokens and held
