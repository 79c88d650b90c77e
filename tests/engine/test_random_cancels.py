"""A thousand cancels, and shutting down in the middle of everything: nothing hangs, nothing leaks."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from jaxphoton.engine.engine import Engine
from jaxphoton.requests.errors import ModelClosed
from tests.engine.comparison import Comparison
from tests.engine.harness import check_clean
from tests.engine.test_constraints import restricted
from tests.engine.tiny import request, with_engine

PATIENCE = 300.0
GRAMMARS = ("text", "detect", "reasoning", "point")


def draw(random: np.random.Generator):
    """One of few requests, so that the oracle is asked little."""
    seed = int(random.integers(24))
    picture = seed % 4 if seed % 4 < 3 else None
    asked = request(GRAMMARS[seed % 4], 2 + seed, picture, seed=seed, max_tokens=6 + seed % 7)
    return restricted(asked, seed) if seed % 5 == 0 else asked


@pytest.mark.parametrize("depth", [1, 2])
def test_a_thousand_cancels_at_random_moments(programs, oracle, depth):
    random, threads = np.random.default_rng(depth), threading.active_count()
    with Engine(with_engine(programs, depth=depth, max_waiting=2000)) as engine:
        submissions, cancelled = [], 0
        while cancelled < 1000:
            submissions.append(engine.submit(draw(random)))
            if random.random() < 0.8:
                engine.cancel(submissions[int(random.integers(max(0, len(submissions) - 12), len(submissions)))])
                cancelled += 1
        assert engine.drain(PATIENCE)
        assert all(submission.future.done() for submission in submissions)
        kept = [s for s in submissions if not s.future.cancelled()]
        comparison = Comparison(oracle)
        for submission in kept[:40]:
            generation = submission.future.result()
            comparison.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)
        outcomes = engine.metrics().outcomes
        assert (outcomes.finished, outcomes.cancelled) == (len(kept), len(submissions) - len(kept))
    check_clean(engine.scheduler)
    assert threading.active_count() == threads


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_shutting_down_in_the_middle_ends_everybody(programs, depth, after):
    random = np.random.default_rng(after)
    engine = Engine(with_engine(programs, depth=depth, max_waiting=200))
    reached = threading.Event()
    heard = []

    def listen(token, finish) -> None:
        heard.append(token)
        if len(heard) > after:
            reached.set()

    submissions = [engine.submit(draw(random), listen) for _ in range(60)]
    assert reached.wait(PATIENCE)
    closing = threading.Thread(target=engine.shutdown, kwargs={"wait": False})
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert all(submission.future.done() for submission in submissions)
    with pytest.raises(ModelClosed):
        engine.submit(draw(random))
    check_clean(engine.scheduler)
