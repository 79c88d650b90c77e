"""Single asks of several engine processes: events, deadlines, priorities, giving up, and deaths on the way."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from jaxphoton.batch.workers import supervisor
from jaxphoton.batch.workers.pool import Replicas
from jaxphoton.batch.workers.protocol import ask_task, error_fields, error_of, image_of, job_of, job_task
from jaxphoton.image.errors import ImageError
from jaxphoton.image.several import SeveralImages
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.errors import DeadlineExceeded, EngineError, ModelClosed, QueueFull
from tests.batch.workers.test_replicas import COMMAND, no_pauses, start  # noqa: F401
from tests.image.pools import S, until

QUERY = Ask("query", {"question": "why?"}, {"temperature": 0}, priority=2)


def texts(events: list) -> list[str]:
    return [event["chunk"] for event in events]


def test_events_and_results_of_many_at_once(start):  # noqa: F811
    replicas, asked = start(), []
    for number in range(40):
        events = []
        image = f"a picture {number}".encode()
        asked.append((image, events, replicas.submit(image, QUERY, events.append, wait=True)))
    for image, events, pending in asked:
        result = pending.future.result(S)
        assert result["answer"] == image.decode() and result.finish_reason == "stop"
        assert result["asked"] == ["query", {"question": "why?"}, 2]
        assert texts(events) == image.decode().split()


def test_asks_go_beside_jobs_and_need_no_events_and_no_image(start):  # noqa: F811
    replicas = start(1)
    pending = [replicas.submit(None, QUERY, wait=True) for _ in range(5)]
    answers = list(replicas.answer(Job(key, b"a job", (QUERY,)) for key in range(20)))
    assert len(answers) == 20 and all(answer.error is None for answer in answers)
    assert [each.future.result(S)["answer"] for each in pending] == ["nothing"] * 5


def test_jobs_of_low_priority_wait_behind_asks(start):  # noqa: F811
    replicas, order = start(1), []
    slow = [replicas.submit(b"slow", QUERY) for _ in range(6)]  # all that it takes
    low = Ask("query", priority=-1)

    def read() -> None:
        order.extend(["job"] * len([*replicas.answer(Job(key, b"a job", (low,)) for key in range(3))]))

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: replicas.unfinished == 9, "the jobs wait")
    asks = [replicas.submit(b"slow", QUERY) for _ in range(3)]
    for each in slow[:3]:
        each.cancel()
    until(lambda: replicas.unfinished == 9, "three have ended")
    for each in asks:
        each.future.add_done_callback(lambda _: order.append("ask"))
    assert order == []  # the asks have the places of those three
    for each in [*slow, *asks]:
        each.cancel()
    reader.join(S)
    until(lambda: len(order) == 6, "the asks are told, too")
    assert sorted(order) == ["ask"] * 3 + ["job"] * 3


def test_what_the_skill_refuses_is_the_error_of_its_future(start):  # noqa: F811
    replicas = start(1)
    assert isinstance(replicas.submit(b"x", Ask("wrong")).future.exception(S), ValueError)
    with pytest.raises(TypeError, match="paths or bytes"):
        replicas.submit(object(), QUERY)
    with pytest.raises(TypeError, match="JSON"):
        replicas.submit(b"x", Ask("query", {"question": object()}))
    assert isinstance(error_of(error_fields(NotImplementedError("adapters"))), NotImplementedError)
    with pytest.raises(TypeError, match="must be an Ask, not str"):
        replicas.submit(b"x", "caption")


@pytest.mark.smoke
def test_several_images_of_an_ask_go_up_in_one_message():
    several = SeveralImages((b"ab", "/a/b.png", b"", b"cde", Path("c.png")))
    task = ask_task(several, QUERY, None)
    sent = json.loads(json.dumps(task.message)) | {"bytes": task.data}
    assert image_of(sent) == SeveralImages((b"ab", "/a/b.png", b"", b"cde", "c.png"))
    job = job_task(Job("k", SeveralImages((b"x", b"y")), (QUERY,)))
    assert job_of({**job.message, "bytes": job.data, "number": 3}).image == SeveralImages((b"x", b"y"))
    with pytest.raises(TypeError, match="paths or bytes, not object"):
        ask_task(SeveralImages((b"x", object())), QUERY, None)


def test_giving_up_reaches_the_process_and_frees_its_place(start):  # noqa: F811
    replicas, begun = start(1), threading.Event()
    slow = [replicas.submit(b"slow", QUERY, lambda event: begun.set()) for _ in range(6)]  # all it takes
    waiting = replicas.submit(b"fine", QUERY)
    assert begun.wait(S) and not waiting.future.done()
    for _ in range(3):
        slow[0].cancel()
    assert waiting.future.result(S)["answer"] == "fine"
    with pytest.raises(CancelledError):
        slow[0].future.result(S)
    assert not any(each.future.done() for each in slow[1:])
    until(lambda: "replica 0: an ask was given up" in start.lines, "the process has ended it")
    for each in slow:
        each.cancel()
    until(lambda: all(each.future.cancelled() for each in slow), "all are given up")


def test_giving_up_what_waits_and_what_has_ended(start):  # noqa: F811
    replicas = start(1)
    done = replicas.submit(b"fine", QUERY)
    result = done.future.result(S)
    done.cancel()
    assert done.future.result() is result
    slow = [replicas.submit(b"slow", QUERY) for _ in range(6)]
    until(lambda: len(slow) == 6, "six are sent")
    waiting = replicas.submit(b"fine", QUERY)
    waiting.cancel()
    assert waiting.future.cancelled()


def test_an_observer_that_raises_ends_its_ask_alone(start):  # noqa: F811
    def broken(event):
        raise OSError("the client is gone")

    replicas = start(1)
    first, second = replicas.submit(b"slow", QUERY, broken), replicas.submit(b"fine", QUERY, lambda event: None)
    with pytest.raises(OSError, match="the client is gone"):
        first.future.result(S)
    assert second.future.result(S)["answer"] == "fine"


def test_an_ask_without_events_so_far_is_tried_again(start, tmp_path):  # noqa: F811
    replicas = start(1)
    image = f"once {tmp_path / 'died'}".encode()
    assert replicas.submit(image, QUERY).future.result(S)["answer"] == image.decode()
    assert any("has died (killed by SIGKILL); started again, images to try again: 1" in line for line in start.lines)


def test_an_ask_that_kills_twice_fails_alone(start):  # noqa: F811
    replicas = start(1)
    poison = replicas.submit(b"dies", QUERY)
    others = [replicas.submit(b"fine", QUERY, wait=True) for _ in range(4)]
    error = poison.future.exception(S)
    assert isinstance(error, ImageError) and error.reason == "process-died"
    assert all(each.future.result(S)["answer"] == "fine" for each in others)


def test_after_the_first_event_a_death_is_told(start):  # noqa: F811
    events = []
    error = start(1).submit(b"a picture dies", QUERY, events.append).future.exception(S)
    assert isinstance(error, EngineError)
    assert str(error) == "the engine process ended in the middle of an answer (killed by SIGKILL)"
    assert texts(events) == ["a", "picture", "dies"]


def test_deadlines_are_kept_by_the_process_and_where_none_has_the_ask(start):  # noqa: F811
    replicas = start(1)
    with pytest.raises(DeadlineExceeded):
        replicas.submit(b"fine", Ask("query", deadline=time.monotonic()))
    late = replicas.submit(b"slow", Ask("query", deadline=time.monotonic() + 0.05))
    assert str(late.future.exception(S)) == "too late"  # in the words of the process
    slow = [replicas.submit(b"slow", QUERY) for _ in range(6)]
    waiting = replicas.submit(b"fine", Ask("query", deadline=time.monotonic() + 0.05))
    error = waiting.future.exception(S)
    assert isinstance(error, DeadlineExceeded) and "before an engine process could take it" in str(error)
    assert not any(each.future.done() for each in slow)


def test_the_number_of_asks_is_bounded(start):  # noqa: F811
    replicas = start(1)
    slow = [replicas.submit(b"slow", QUERY) for _ in range(12)]  # what the process takes, and as many that wait
    with pytest.raises(QueueFull, match="12 jobs and asks"):
        replicas.submit(b"fine", QUERY)
    with pytest.raises(DeadlineExceeded):
        replicas.submit(b"fine", Ask("query", deadline=time.monotonic() + 0.05), wait=True)
    threading.Timer(0.05, slow[3].cancel).start()
    last = replicas.submit(b"fine", QUERY, wait=True)
    for each in slow:
        each.cancel()
    assert last.future.result(S)["answer"] == "fine"


def test_a_stopped_process_loses_no_ask(monkeypatch):
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.01)
    with Replicas((None,) * 2, {"path_or_id": "well"}, log=lambda _: None, silence=2.0, command=COMMAND) as replicas:
        until(lambda: len(replicas.pids) == 2, "two processes")
        os.kill(replicas.pids[0], signal.SIGSTOP)
        pending = [replicas.submit(b"fine", QUERY, wait=True) for _ in range(30)]
        assert all(each.future.result(S)["answer"] == "fine" for each in pending)


def test_closing_ends_asks_in_the_words_of_a_model(start):  # noqa: F811
    replicas = start(1)
    slow = [replicas.submit(b"slow", QUERY) for _ in range(8)]
    replicas.close()
    assert all(isinstance(each.future.exception(S), ModelClosed) for each in slow)
    with pytest.raises(ModelClosed):
        replicas.submit(b"fine", QUERY)


def test_when_no_process_is_left(start):  # noqa: F811
    replicas = start(1)
    pending = [replicas.submit(b"dies", QUERY, wait=True) for _ in range(12)]
    errors = [each.future.exception(S) for each in pending]
    assert {type(error) for error in errors} <= {ImageError, EngineError}
    assert isinstance(errors[-1], EngineError) and "no engine process is left" in str(errors[-1])
