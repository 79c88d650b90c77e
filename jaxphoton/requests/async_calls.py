"""The same for asyncio: the loop never waits, and whoever stops waiting ends the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

from jaxphoton.requests.answer import Result
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.carrying import Carrier
from jaxphoton.requests.errors import DeadlineExceeded, QueueFull
from jaxphoton.requests.submitting import Pending
from jaxphoton.requests.tokens import Event

LATE = "the deadline passed before the request was ready"
# Who answers keeps the deadlines of what it has, and knows best what to say. But it may hang, or be started again.
LEEWAY_S = 1.0


@asynccontextmanager
async def within(deadline: float | None, late: str = LATE) -> AsyncIterator[None]:
    """What is done in the block, up to a moment in seconds of `time.monotonic()`.

    Raises:
      DeadlineExceeded: it was not done by then.
    """
    limit = asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic()))
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded(late) from None
    if deadline is not None and time.monotonic() >= deadline:  # it may end before the limit is looked at
        raise DeadlineExceeded(late)


class AsyncCalls:
    """Asks one model, wherever it is, for coroutines of any loop."""

    def __init__(self, carrier: Carrier):
        self._carrier = carrier

    async def call(self, image: Any, ask: Ask) -> Result | list[Result]:
        """One result, or for a list of images a list of them."""
        if not isinstance(image, (list, tuple)):
            return await self._one(image, ask)
        room = _Room(len(image), self._carrier.batch_requests)
        tasks = [asyncio.create_task(self._one(each, ask, room)) for each in image]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def pieces(self, image: Any, ask: Ask, result: Result) -> AsyncGenerator[str, None]:
        """The pieces of a text; fills `result`."""
        async with _UnderWay(self, image, ask, streamed=True) as run:
            while event := await run.next():
                if "chunk" in event:
                    yield event["chunk"]
                else:
                    result.update(event)
            result.update(run.result)
            result.complete(run.result)

    async def events(self, image: Any, ask: Ask) -> AsyncGenerator[Event, None]:
        """The events of an ask; the last is the result, with "completed"."""
        async with _UnderWay(self, image, ask, streamed=True) as run:
            while event := await run.next():
                yield event
            run.result["completed"] = True
            yield run.result

    async def _one(self, image: Any, ask: Ask, room: _Room | None = None) -> Result:
        async with room.under_way if room else nullcontext(), _UnderWay(self, image, ask, room=room) as run:
            await run.next()
            return run.result

    async def submit(self, run: _Run, image: Any, ask: Ask, room: _Room | None) -> None:
        """Submits the request; a run that was left meanwhile is given up."""
        async with within(ask.deadline):
            handover = await self._carrier.prepared(image, ask, room.images if room else 1)

        def submit(wait: bool = False) -> None:
            run.begin(handover.submit(run.listener, wait))

        # On the loop what takes no time, and in a thread what does, such as waiting for room, as a list does.
        if handover.instant:
            try:
                return submit()
            except QueueFull:
                if room is None:
                    raise
        elif room is None:
            return await asyncio.to_thread(submit)
        async with room.turn:
            await asyncio.to_thread(submit, True)


class _UnderWay:
    """A request from submitting it to leaving the block, which gives it up unless it has ended.

    Not a generator with `asynccontextmanager`: at its end a loop closes all asynchronous generators, and would close
    that one before the stream it belongs to.
    """

    def __init__(self, calls: AsyncCalls, image: Any, ask: Ask, streamed: bool = False, room: _Room | None = None):
        self._calls, self._what, self._streamed = calls, (image, ask, room), streamed
        self._run: _Run | None = None

    async def __aenter__(self) -> _Run:
        self._run = run = _Run(self._streamed, self._what[1].deadline)
        try:
            await self._calls.submit(run, *self._what)
        except BaseException:
            run.leave()
            raise
        return run

    async def __aexit__(self, *_: Any) -> None:
        if self._run is not None:
            self._run.leave()


class _Room:
    """What a list of `images` images may take: so many requests under way, and one thread that waits for the engine."""

    def __init__(self, images: int, requests: int):
        self.images = images
        self.under_way, self.turn = asyncio.Semaphore(requests), asyncio.Lock()


class _Run:
    """Carries a request's events and its end to a coroutine; never blocks who brings them.

    Attributes:
      result: once `next` was None.
      listener: takes the events of one that is streamed.
    """

    def __init__(self, streamed: bool, deadline: float | None):
        self.listener: Callable[[Event], None] | None = self._put if streamed else None
        self._loop, self._items = asyncio.get_running_loop(), asyncio.Queue()
        self._ahead: Event | Future[Result] | None = None  # taken from the items, and not given out
        self._pending: Pending | None = None
        self._left = False
        self._deadline = None if deadline is None else deadline + LEEWAY_S

    def begin(self, pending: Pending) -> None:
        self._pending = pending
        if self._left:  # before it could be told which request to give up
            pending.cancel()
        pending.future.add_done_callback(self._put)

    def leave(self) -> None:
        """Gives the request up, unless it has ended; one that is still being submitted, as soon as it is."""
        self._left = True
        if self._pending is not None:
            self._pending.cancel()

    async def next(self) -> Event | None:
        """The next event; None once there is a `result`. Raises what has ended the request instead."""
        waits = self._ahead is None and self._items.empty()
        if not waits:  # where many came at once, others have their turn between, such as the end of who reads them
            await asyncio.sleep(0)
        # What came in time may be read at any time.
        async with within(self._deadline, "the deadline passed") if waits and self._deadline else nullcontext():
            item = await self._items.get() if self._ahead is None else self._ahead
        self._ahead = None
        if not isinstance(item, Future):
            return self._joined(item)
        self.result: Result = item.result()
        return None

    def _joined(self, event: Event) -> Event:
        """Pieces of a text that wait one behind the other are one: whoever reads slower than they come catches up."""
        texts = [event["chunk"]] if _is_text(event) else []
        while texts and not self._items.empty():
            if not _is_text(item := self._items.get_nowait()):
                self._ahead = item
                break
            texts.append(item["chunk"])
        return {"chunk": "".join(texts)} if len(texts) > 1 else event

    def _put(self, item: Event | Future[Result]) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)


def _is_text(item: Any) -> bool:
    """Whether it is a piece of a text and nothing else."""
    return not isinstance(item, Future) and item.keys() == {"chunk"}
