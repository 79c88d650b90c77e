"""Asks handed over one by one: prepared once, followed by events, given up, observed."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jaxphoton import Ask, DeadlineExceeded, ImageError, Job
from jaxphoton.requests.bounds import bounds_of
from jaxphoton.requests.preparing import KEPT, AskPreparer

S = 60
EXAMPLES = Path(__file__).parents[2] / "examples" / "shapes"
PICTURES = sorted(path for path in EXAMPLES.iterdir() if path.suffix == ".png")
GREEDY = {"temperature": 0}
QUESTION = "How many objects are there?"


def joined(events: list[dict]) -> str:
    return "".join(event["chunk"] for event in events if "chunk" in event)


def test_events_are_the_result_in_pieces_and_all_come_before_it(shapes):
    for ask, field in (
        (Ask("caption", {"length": "short"}, GREEDY), "caption"),
        (Ask("query", {"question": QUESTION, "reasoning": True}, {**GREEDY, "max_tokens": 12}), "answer"),
    ):
        events, seen = [], []
        pending = shapes.submit(PICTURES[0], ask, events.append)
        pending.future.add_done_callback(lambda _, seen=seen, events=events: seen.append(len(events)))
        result = pending.future.result(S)
        assert joined(events) == result[field] and all(len(event) == 1 for event in events)
        if "reasoning" in result:
            assert events[0] == {"reasoning": result["reasoning"]}
        assert seen == [len(events)] and result.finish_reason and result.metrics.output_tokens == len(result.tokens)


def test_a_skill_without_a_text_has_no_events(shapes):
    events = []
    pending = shapes.submit(PICTURES[0], Ask("detect", {"object": "object"}), events.append)
    assert pending.future.result(S) == shapes.detect(PICTURES[0], "object") and not events


def test_what_on_event_raises_ends_its_own_ask(shapes):
    def leave(event):
        raise LookupError("enough")

    def exit_(event):
        raise SystemExit

    first = shapes.submit(PICTURES[0], Ask("caption", {}, GREEDY), leave)
    second = shapes.submit(PICTURES[0], Ask("caption", {}, GREEDY), exit_)
    third = shapes.submit(PICTURES[0], Ask("caption", {}, GREEDY), lambda event: None)
    with pytest.raises(LookupError, match="enough"):
        first.future.result(S)
    with pytest.raises(RuntimeError, match="on_event raised SystemExit"):
        second.future.result(S)
    assert third.future.result(S) == shapes.caption(PICTURES[0], settings=GREEDY)


def test_cancelling_ends_the_work_and_the_future(shapes):
    begun = threading.Event()
    before = shapes.engine.metrics().outcomes.cancelled
    noise = {"temperature": 30.0, "top_p": 1.0, "max_tokens": 700, "seed": 3}
    pending = shapes.submit(PICTURES[0], Ask("caption", {}, noise), lambda event: begun.set())
    assert begun.wait(S)
    for _ in range(3):
        pending.cancel()
    assert shapes.engine.drain(S) and shapes.engine.metrics().outcomes.cancelled == before + 1
    with pytest.raises(CancelledError):
        pending.future.result(S)
    assert pending.future.cancelled()


def test_a_deadline_and_a_priority_reach_the_engine(shapes):
    with pytest.raises(DeadlineExceeded):
        shapes.submit(PICTURES[0], Ask("caption", deadline=0.0)).future.result(S)
    heard = []
    with shapes.observe(requests=heard.append):
        shapes.submit(PICTURES[0], Ask("caption", {}, GREEDY, priority=7)).future.result(S)
    (submission,) = heard
    assert submission.sequence.request.priority == 7


def test_an_ask_is_prepared_once_however_often_it_is_asked(shapes, monkeypatch):
    made, make = [], AskPreparer._made
    monkeypatch.setattr(AskPreparer, "_made", lambda self, ask: made.append(ask) or make(self, ask))
    ask = Ask("query", {"question": "Prepared once?"}, {**GREEDY, "max_tokens": 2})
    again = Ask("query", {"question": "Prepared once?"}, {**GREEDY, "max_tokens": 2})
    answers = list(shapes.answer(Job(i, PICTURES[i % 3], (ask if i % 2 else again,)) for i in range(8)))
    assert len(answers) == 8 and all(answer.error is None for answer in answers) and made == [ask]
    for number in range(KEPT + 1):
        shapes.session.preparer.prepare(Ask("query", {"question": f"Number {number}?"}))
    assert len(shapes.session.preparer._kept) == KEPT
    # Not kept: it has no JSON form. Still asked.
    assert shapes.submit(PICTURES[0], Ask("query", {"question": "Where?", "spatial_refs": {(0.5, 0.5)}}, GREEDY)).future


def test_what_is_too_long_to_be_run_is_not_kept(shapes):
    preparer = shapes.session.preparer
    before = list(preparer._kept)
    for number in range(3):
        ask = Ask("chat", {"messages": [{"role": "user", "content": f"{number} " * shapes.family.max_context}]})
        with pytest.raises(ValueError, match="positions"):
            shapes.submit(PICTURES[0], ask)
    assert list(preparer._kept) == before


def test_an_ask_without_a_json_form_is_prepared_once_a_job(shapes, monkeypatch):
    made, make = [], AskPreparer._made
    monkeypatch.setattr(AskPreparer, "_made", lambda self, ask: made.append(ask) or make(self, ask))
    places = np.array([[0.5, 0.5]])
    asks = [Ask("query", {"question": "What is it?", "spatial_refs": places}, {"max_tokens": 2}) for _ in range(3)]
    answers = list(shapes.answer(Job(i, PICTURES[i], (ask,)) for i, ask in enumerate(asks)))
    assert [answer.error for answer in answers] == [None] * 3 and made == asks


def test_a_wrong_ask_is_known_before_its_image_is_read(shapes):
    (answer,) = shapes.answer([Job(0, "nowhere.png", (Ask("detect", {"object": " "}),))])
    assert "object must not be empty" in str(answer.error)
    (answer,) = shapes.answer([Job(0, "nowhere.png", (Ask("detect", {"object": "car"}),))])
    assert isinstance(answer.error, ImageError)


def test_different_seeds_are_drawn_for_one_prepared_ask(shapes):
    ask = Ask("caption", {}, {"temperature": 30.0, "top_p": 1.0, "max_tokens": 8})
    results = [shapes.submit(PICTURES[0], ask).future.result(S) for _ in range(3)]
    assert len({result.seed for result in results}) == 3


def test_several_observe_at_once_and_one_that_raises_is_left_out(shapes, caplog):
    one, two, images = [], [], []

    def broken(launch):
        raise LookupError("broken observer")

    with shapes.observe(launches=one.append, images=images.append):
        with shapes.observe(launches=two.append), shapes.observe(launches=broken), caplog.at_level(logging.ERROR):
            shapes.caption(PICTURES[0], settings={"max_tokens": 3})
            assert shapes.engine.drain(S)
        inner = len(two)
        shapes.caption(PICTURES[1], settings={"max_tokens": 3})
        assert shapes.engine.drain(S)
    assert two == one[:inner] and len(one) > inner == len(two) and len(images) == 2
    assert caplog.text.count("an observer of launches raised; it is not called again") == 1
    outer = len(one)
    shapes.caption(PICTURES[1], settings={"max_tokens": 3})
    assert shapes.engine.drain(S) and len(one) == outer


def test_a_batch_keeps_to_its_bounds(shapes):
    bounds, most = bounds_of(shapes.engine_config), []
    with shapes.observe(launches=lambda _: most.append(shapes.engine._pending)):
        with ThreadPoolExecutor(1) as pool:
            items = pool.submit(lambda: list(shapes.caption_batch(PICTURES * 10, "short", GREEDY))).result(10 * S)
    assert len(items) == 10 * len(PICTURES) and max(most) <= bounds.batch <= bounds.requests
