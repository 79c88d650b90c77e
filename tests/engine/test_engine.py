"""The threaded engine: anybody submits, everybody who waits hears, nothing hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait

import pytest

from jaxphoton.engine.engine import Engine, Submission
from jaxphoton.requests.errors import EngineError, ModelClosed, QueueFull
from jaxphoton.requests.tokens import Generation
from tests.engine.blocking import BlockingCallback
from tests.engine.comparison import Comparison
from tests.engine.harness import check_clean
from tests.engine.tiny import request, with_engine

PATIENCE = 300.0  # seconds after which a test fails; none waits so long


def within(call: Callable[[], object]) -> object:
    """The result of a call that must not hang."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(PATIENCE)


@pytest.fixture(params=[1, 2], ids=["depth 1", "depth 2"])
def engine(programs, request):
    engine = Engine(with_engine(programs, depth=request.param))
    yield engine
    within(lambda: engine.shutdown(wait=False))
    if engine._failure is None:
        check_clean(engine.scheduler)


def held(engine: Engine) -> tuple[Submission, BlockingCallback]:
    """A running request whose engine stands still until the callback is released."""
    callback = BlockingCallback()
    submission = engine.submit(request(max_tokens=60, temperature=0.0), callback)
    callback.reached()
    return submission, callback


def release_when_closing(engine: Engine, callback: BlockingCallback) -> None:
    """Lets the engine's thread go on as soon as somebody is shutting the engine down."""

    def watch() -> None:
        with engine._wake:
            assert engine._wake.wait_for(lambda: engine._closing, PATIENCE)
        callback.release()

    threading.Thread(target=watch, daemon=True).start()


def result(submission: Submission) -> Generation:
    return submission.future.result(PATIENCE)


def test_requests_of_several_threads_get_what_the_oracle_gives(engine, oracle):
    asked = [
        [
            request(grammar, 3 + 5 * i, i % 4 if i % 4 < 3 else None, seed=10 * thread + i, temperature=1.5)
            for i, grammar in enumerate(["text", "detect", "point", "reasoning", "detect", "text"])
        ]
        for thread in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        submissions = [s for each in pool.map(lambda many: [engine.submit(one) for one in many], asked) for s in each]
    comparison = Comparison(oracle)
    for submission in submissions:
        generation = result(submission)
        comparison.compare(submission.sequence.request, list(generation.tokens), generation.finish_reason)
    assert comparison.compared == 24 and len(comparison.near_ties) <= 1
    assert engine.drain(PATIENCE)


def test_every_token_is_heard_once_in_order_and_the_last_with_its_reason(engine):
    heard: dict[int, list] = {i: [] for i in range(6)}
    submissions = [
        engine.submit(request("text", 4, seed=i), lambda token, finish, i=i: heard[i].append((token, finish)))
        for i in heard
    ]
    for i, submission in enumerate(submissions):
        generation = result(submission)
        assert [token for token, _ in heard[i]] == list(generation.tokens)
        reasons = [finish for _, finish in heard[i]]
        assert reasons == [None] * (len(reasons) - 1) + [generation.finish_reason]


def test_a_listener_may_end_its_request_with_what_there_is(engine):
    heard = []

    def enough(token, finish) -> bool:
        heard.append(token)
        return len(heard) == 3

    submission = engine.submit(request(max_tokens=60, temperature=0.0), enough)
    others = [engine.submit(request(seed=i)) for i in range(4)]
    generation = result(submission)
    assert list(generation.tokens) == heard and len(heard) == 3 and generation.finish_reason == "stop"
    assert all(result(other).tokens for other in others) and engine.drain(PATIENCE)
    assert engine.metrics().outcomes.finished == 5


def test_a_running_request_can_be_cancelled(engine):
    submission, callback = held(engine)
    other = engine.submit(request(seed=2))
    engine.cancel(submission)
    callback.release()
    assert wait([submission.future], PATIENCE).done == {submission.future}
    with pytest.raises(CancelledError):
        submission.future.result(0)
    assert len(result(other).tokens) > 0 and engine.drain(PATIENCE)


def test_a_waiting_request_can_be_cancelled(engine):
    _, callback = held(engine)
    waiting = engine.submit(request(seed=2))
    engine.cancel(waiting)
    callback.release()
    assert wait([waiting.future], PATIENCE).done and waiting.future.cancelled() and not waiting.sequence.tokens


def test_a_request_can_be_cancelled_from_its_own_listener(engine):
    submissions: list[Submission] = []
    ready = threading.Event()

    def give_up(token, finish) -> None:
        assert ready.wait(PATIENCE)
        engine.cancel(submissions[0])

    submissions.append(engine.submit(request(max_tokens=60, temperature=0.0), give_up))
    ready.set()
    assert wait([submissions[0].future], PATIENCE).done and submissions[0].future.cancelled()


def test_cancelling_what_has_ended_changes_nothing(engine):
    submission = engine.submit(request())
    generation = result(submission)
    engine.cancel(submission), engine.cancel(submission)
    assert engine.drain(PATIENCE) and result(submission) is generation
    assert len(result(engine.submit(request(seed=3))).tokens) > 0


def test_a_future_that_its_owner_has_cancelled_disturbs_nobody(engine):
    submission, callback = held(engine)
    assert submission.future.cancel()
    callback.release()
    assert len(result(engine.submit(request(seed=3))).tokens) > 0
    assert engine.drain(PATIENCE) and submission.future.cancelled()


def test_drain_waits_for_everything_and_says_if_it_could_not(engine):
    submission, callback = held(engine)
    assert not engine.drain(timeout=0)
    callback.release()
    assert engine.drain(PATIENCE) and submission.future.done()
    assert engine.drain(timeout=0)


def test_shutdown_finishes_what_was_submitted(engine):
    submissions = [engine.submit(request(seed=i)) for i in range(12)]
    within(engine.shutdown)
    assert all(submission.future.done() and result(submission).tokens for submission in submissions)
    within(engine.shutdown), within(lambda: engine.shutdown(wait=False))
    with pytest.raises(ModelClosed):
        engine.submit(request())


def test_shutdown_without_waiting_ends_what_has_not_ended(engine):
    running, callback = held(engine)
    waiting = [engine.submit(request(seed=i)) for i in range(12)]
    release_when_closing(engine, callback)
    within(lambda: engine.shutdown(wait=False))
    futures = [submission.future for submission in (running, *waiting)]
    assert all(isinstance(future.exception(PATIENCE), ModelClosed) for future in futures)


def test_an_idle_engine_shuts_down(engine):
    within(lambda: engine.shutdown(wait=True))


def test_the_engine_may_be_shut_down_from_its_own_thread(engine):
    submission = engine.submit(request(), lambda token, finish: engine.shutdown())
    assert len(result(submission).tokens) > 0
    within(engine.shutdown)


def test_more_than_may_wait_are_refused(programs):
    engine = Engine(with_engine(programs, max_waiting=2))
    first, callback = held(engine)
    others = [engine.submit(request(seed=i)) for i in range(8 + 2 - 1)]
    with pytest.raises(QueueFull, match="10 requests are waiting or running"):
        engine.submit(request())
    callback.release()
    assert all(result(submission).tokens for submission in (first, *others))
    assert len(result(engine.submit(request())).tokens) > 0
    within(engine.shutdown)


def test_what_could_never_run_is_refused_at_once_and_the_engine_goes_on(engine):
    for wrong, message in (
        (request(prompt=95), "leaves no room"),
        (request(prompt=0, picture=0), "empty"),
        (request("poem"), "no grammar 'poem'"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.submit(wrong)
    assert len(result(engine.submit(request())).tokens) > 0


def test_a_listener_that_raises_ends_its_own_request_only(engine):
    def raise_(token, finish) -> None:
        raise KeyError("not mine")

    wrong = engine.submit(request(max_tokens=60, temperature=0.0), raise_)
    at_its_end = engine.submit(request(max_tokens=1), raise_)
    others = [engine.submit(request(seed=i)) for i in range(4)]
    for submission in (wrong, at_its_end):
        with pytest.raises(KeyError, match="not mine"):
            result(submission)
    assert len(wrong.sequence.tokens) == 1 and all(result(other).tokens for other in others)
    assert engine.drain(PATIENCE)


def test_a_failure_of_the_loop_reaches_everybody_who_waits(engine, monkeypatch):
    _, callback = held(engine)
    submissions = [engine.submit(request(seed=i)) for i in range(20)]
    engine.cancel(submissions[3])

    def lost(output) -> None:
        raise OSError("the device is gone")

    # A device that fails and cannot be reset either; see test_faults.py for one that can.
    monkeypatch.setattr(engine.pipeline.device, "fetch", lost)
    monkeypatch.setattr(engine.pipeline.device, "reset", lambda: lost(None))
    callback.release()
    for submission in submissions:
        if submission is not submissions[3]:
            with pytest.raises(EngineError, match="the device is gone") as caught:
                result(submission)
            assert isinstance(caught.value.__cause__, OSError)
    assert engine.drain(PATIENCE)
    with pytest.raises(EngineError, match="has failed: the device is gone"):
        engine.submit(request())
    within(engine.shutdown)


def test_a_failure_of_the_scheduler_reaches_those_not_yet_taken(engine, monkeypatch):
    _, callback = held(engine)

    def broken(*_) -> None:
        raise RuntimeError("books do not balance")

    for name in ("plan", "add", "finalize"):
        monkeypatch.setattr(engine.scheduler, name, broken)
    submissions = [engine.submit(request(seed=i)) for i in range(3)]
    engine.cancel(submissions[0])
    callback.release()
    for submission in submissions:
        with pytest.raises(EngineError, match="books do not balance"):
            result(submission)
    within(engine.shutdown)


def test_leaving_the_context_waits_and_an_exception_does_not(programs):
    with Engine(programs) as engine:
        submissions = [engine.submit(request(seed=i)) for i in range(12)]
    assert all(submission.future.done() and result(submission).tokens for submission in submissions)
    with pytest.raises(ZeroDivisionError), Engine(programs) as engine:
        submission, callback = held(engine)
        release_when_closing(engine, callback)
        raise ZeroDivisionError
    assert isinstance(submission.future.exception(PATIENCE), ModelClosed)


def test_a_second_question_about_an_image_reuses_its_prefix(engine):
    plans = []
    prefill = engine.pipeline.device.prefill
    engine.pipeline.device.prefill = lambda plan: plans.append(plan) or prefill(plan)
    submissions = []
    for _ in range(2):
        submissions.append(engine.submit(request("text", 6, 1, seed=4)))
        result(submissions[-1])
    first, second = map(result, submissions)
    assert first.tokens == second.tokens
    assert [len(plan.images) for plan in plans] == [1, 0]
    assert submissions[0].sequence.prefix in engine.scheduler.prefixes
