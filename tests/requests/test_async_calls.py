"""Asks of coroutines to a submitter that is not this process's model."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.requests import async_calls
from jaxphoton.requests.answer import Result
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.async_calls import AsyncCalls
from jaxphoton.requests.carrying import DirectCarrier
from jaxphoton.requests.errors import DeadlineExceeded, QueueFull

ASK = Ask("caption")


class Handed:
    def __init__(self):
        self.future: Future[Result] = Future()
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


class Submitter:
    """Says what it is given at once, and ends unless told otherwise."""

    def __init__(self, *events, ends: bool = True, full: int = 0):
        self.events, self.ends, self.full = events, ends, full
        self.handed: list[Handed] = []
        self.waited: list[bool] = []

    def submit(self, image, ask, on_event=None, wait=False) -> Handed:
        self.waited.append(wait)
        if self.full and not wait:
            self.full -= 1
            raise QueueFull("full")
        self.handed.append(handed := Handed())
        if on_event is not None:
            for event in self.events:
                on_event(event)
        if self.ends:
            handed.future.set_result(Result(caption=image))
        return handed


def calls(submitter: Submitter) -> AsyncCalls:
    return AsyncCalls(DirectCarrier(submitter, 4))


def test_others_have_their_turn_between_events_that_came_at_once():
    order = []

    async def other() -> None:
        while True:
            order.append("other")
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(other())
        async for event in calls(Submitter(*({"bbox": number} for number in range(100)))).events("a", ASK):
            order.append("event" if "bbox" in event else "end")
        task.cancel()

    asyncio.run(main())
    told = [place for place, what in enumerate(order) if what == "event"]
    assert len(told) == 100 and order[-1] == "end"
    assert all(later - sooner > 1 for sooner, later in zip(told, told[1:], strict=False))


@given(
    st.lists(
        st.one_of(
            st.builds(lambda text: {"chunk": text}, st.text(max_size=2)),
            st.builds(lambda text: {"chunk": text, "logprobs": [text]}, st.text(max_size=2)),
            st.just({"bbox": 1}),
        )
    )
)
def test_pieces_of_text_that_wait_come_as_one_and_all_else_as_it_is(events):
    async def main() -> list:
        return [event async for event in calls(Submitter(*events)).events("a", ASK)]

    *told, end = asyncio.run(main())
    assert end["completed"] is True
    joined = []
    for event in events:
        if joined and joined[-1].keys() == event.keys() == {"chunk"}:
            event = {"chunk": joined.pop()["chunk"] + event["chunk"]}
        joined.append(event)
    assert told == joined


def test_a_list_waits_for_room_in_a_thread_and_a_single_ask_does_not():
    submitter = Submitter(full=1)
    with pytest.raises(QueueFull):
        asyncio.run(calls(submitter).call("a", ASK))
    assert submitter.waited == [False]
    submitter = Submitter(full=2)
    results = asyncio.run(calls(submitter).call(["a", "b", "c"], ASK))
    assert [result["caption"] for result in results] == ["a", "b", "c"]
    assert sorted(submitter.waited) == [False] * 3 + [True] * 2


@pytest.mark.parametrize("streamed", [False, True])
def test_a_deadline_holds_where_nobody_answers(monkeypatch, streamed):
    monkeypatch.setattr(async_calls, "LEEWAY_S", 0.0)
    submitter = Submitter({"chunk": "a"}, ends=False)

    async def main():
        ask = Ask("caption", deadline=time.monotonic() + 0.05)
        if not streamed:
            return await calls(submitter).call("a", ask)
        return [event async for event in calls(submitter).events("a", ask)]

    with pytest.raises(DeadlineExceeded, match="the deadline passed"):
        asyncio.run(main())
    assert [each.cancelled for each in submitter.handed] == [1]


def test_who_leaves_gives_the_ask_up():
    submitter = Submitter({"chunk": "a"}, ends=False)

    async def main() -> None:
        events = calls(submitter).events("a", ASK)
        assert await anext(events) == {"chunk": "a"}
        await events.aclose()

    asyncio.run(main())
    assert [each.cancelled for each in submitter.handed] == [1]
