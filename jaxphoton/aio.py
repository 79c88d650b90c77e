"""`AsyncMoondream`: the same models for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from jaxphoton.api import Moondream, SpatialRefs, check_references
from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.engine.engine import Submission
from jaxphoton.models.moondream.skills.query import Query
from jaxphoton.requests.answer import Result
from jaxphoton.requests.errors import DeadlineExceeded, QueueFull
from jaxphoton.requests.images import EncodedImage
from jaxphoton.requests.session import Frontend, make_settings
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Generation, Skill, Token

Given = Mapping[str, Any] | None
Refs = SpatialRefs | None

# Only for more pictures at once than this are the image workers started: starting one takes as long as decoding seven
# photos of 640x480.
ENOUGH_FOR_WORKERS = 16

LATE = "the deadline passed before the request was ready"


class Urgency(TypedDict, total=False):
    """What every request of an AsyncMoondream may be given:
    timeout: seconds from the call after which it is given up with DeadlineExceeded; None for never.
    priority: a higher one is admitted first, within one the first come; 0 if not given.
    """

    timeout: float | None
    priority: int


class AsyncMoondream:
    """The asyncio face of a `Moondream`: the same arguments and `Urgency`, the same results; the loop never blocks.

    Images are decoded in threads, or in the image workers once so many come at once that starting these pays.
    Cancelling the task that waits ends the request in the engine too. Any event loop will do, also several one after
    the other. An asynchronous context manager; leaving it closes the model. Besides what `Moondream` raises, requests
    raise:
      DeadlineExceeded: `timeout` seconds have passed.
      QueueFull: too many requests wait; try again when some have finished. Those of a list wait themselves.
      ModelClosed: the model was closed, before the request or under it.
      EngineError: the engine cannot start, or has failed; what the three above are, too.
    """

    def __init__(self, model: Moondream):
        self.model = model
        self._preparing = 0  # images now; counted on the loop

    @classmethod
    async def from_pretrained(cls, path_or_id: str = "shapes", **options: Any) -> AsyncMoondream:
        """Loads a model; see `Moondream.from_pretrained`."""
        return cls(await asyncio.to_thread(Moondream.from_pretrained, path_or_id, **options))

    async def encode_image(self, image: Any) -> EncodedImage:
        """Decodes and crops an image once; see `Moondream.encode_image`."""
        return await asyncio.to_thread(self.model.encode_image, image)

    async def caption(
        self, image: Any, length: str = "normal", settings: Given = None, **urgency: Unpack[Urgency]
    ) -> Any:
        """Describes an image: {"caption": text}; see `Moondream.caption`."""
        return await _Plan.of(self, lambda m: m._caption(length), settings, **urgency).ask(image)

    def stream_caption(
        self, image: Any, length: str = "normal", settings: Given = None, **urgency: Unpack[Urgency]
    ) -> TextStream:
        """A caption in pieces. Its timeout begins now, its work when the first piece is asked for (that of
        `Moondream.caption` begins at once); closed or dropped at any time, read or unread, it is given up."""
        return TextStream(_Plan.of(self, lambda m: m._caption(length), settings, **urgency), image)

    async def query(
        self,
        image: Any = None,
        question: str | None = None,
        reasoning: bool | None = None,
        spatial_refs: Refs = None,
        settings: Given = None,
        **urgency: Unpack[Urgency],
    ) -> Any:
        """Answers a question about an image, or without one: {"answer": text}; see `Moondream.query`."""
        skill = _query(image, question, reasoning, spatial_refs, settings)
        return await _Plan.of(self, skill, settings, **urgency).ask(image)

    def stream_query(
        self,
        image: Any = None,
        question: str | None = None,
        reasoning: bool | None = None,
        spatial_refs: Refs = None,
        settings: Given = None,
        **urgency: Unpack[Urgency],
    ) -> TextStream:
        """An answer in pieces, as `stream_caption`; its `result` has the reasoning from the first piece on."""
        skill = _query(image, question, reasoning, spatial_refs, settings)
        return TextStream(_Plan.of(self, skill, settings, **urgency), image)

    async def detect(self, image: Any, object: str, settings: Given = None, **urgency: Unpack[Urgency]) -> Any:
        """Boxes; see `Moondream.detect`."""
        return await _Plan.of(self, lambda m: m._detect(object), settings, **urgency).ask(image)

    async def point(
        self, image: Any, object: str, spatial_refs: Refs = None, settings: Given = None, **urgency: Unpack[Urgency]
    ) -> Any:
        """Points; see `Moondream.point`."""
        return await _Plan.of(self, lambda m: m._point(object, spatial_refs), settings, **urgency).ask(image)

    async def segment(
        self, image: Any, object: str, spatial_refs: Refs = None, settings: Given = None, **urgency: Unpack[Urgency]
    ) -> Any:
        """An outline; see `Moondream.segment`."""
        return await _Plan.of(self, lambda m: m._segment(object, spatial_refs), settings, **urgency).ask(image)

    def stream_segment(
        self, image: Any, object: str, spatial_refs: Refs = None, settings: Given = None, **urgency: Unpack[Urgency]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """An outline in the events of `Moondream.segment`; closing the generator ends the request."""
        return _events(_Plan.of(self, lambda m: m._segment(object, spatial_refs), settings, **urgency), image)

    async def aclose(self) -> None:
        """Ends the engine; requests under way raise EngineError. May be called again."""
        await asyncio.to_thread(self.model.close)

    async def __aenter__(self) -> AsyncMoondream:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()


def _query(
    image: Any, question: Any, reasoning: bool | None, refs: Refs, settings: Given
) -> Callable[[Moondream], Skill]:
    def skill(model: Moondream) -> Skill:
        made = model._query(question, reasoning, refs, settings)
        check_references(made, image)
        return made

    return skill


class TextStream:
    """The pieces of one text, none of which breaks a character: an asynchronous iterator.

    Closing it, dropping it and cancelling the task that reads it end the request; reading slowly delays nobody.

    Attributes:
      result: as without streaming; complete when the pieces have ended.
    """

    def __init__(self, plan: _Plan, image: Any):
        self.result = Result()
        # A generator that knew this object would keep it from being dropped.
        self._pieces = _pieces(plan, image, self.result)

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def __anext__(self) -> str:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Gives the request up, unless it has ended."""
        await self._pieces.aclose()


async def _pieces(plan: _Plan, image: Any, result: Result) -> AsyncGenerator[str, None]:
    async with plan.run(image, streamed=True) as (run, submission):
        skill, detokenizer, thought = run.skill, run.front.detokenizer(), list[Token]()
        result.seed = run.settings.seed or 0
        while item := await run.next():
            token, finish = item
            if isinstance(skill, Query) and skill.reasoning and "reasoning" not in result:
                thought.append(token)
                if finish is not None or skill.answer_start(thought) <= len(thought):
                    result["reasoning"] = run.front.thought(skill, thought, finish)["reasoning"]
            elif finish != "stop" and (piece := detokenizer.push(token.id)):
                yield piece
        result.update(run.front.result(skill, run.settings, run.generation))
        result.close(run.generation, submission.metrics)
        if rest := detokenizer.finish():
            yield rest


async def _events(plan: _Plan, image: Any) -> AsyncGenerator[dict[str, Any], None]:
    async with plan.run(image, streamed=True) as (run, submission):
        outline = run.front.outline()
        while item := await run.next():
            token, finish = item
            for event in outline.push(token) if finish != "stop" else ():
                yield event
        yield run.front.completed(run.skill, run.settings, run.generation, submission.metrics)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be asked, and how urgently."""

    owner: AsyncMoondream
    skill: Callable[[Moondream], Skill]
    given: Given
    deadline: float | None
    priority: int

    @classmethod
    def of(
        cls, owner: AsyncMoondream, skill: Any, given: Given, timeout: float | None = None, priority: int = 0
    ) -> _Plan:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float, type(None))):
            raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be at least 0 seconds, got {timeout}")
        return cls(owner, skill, given, None if timeout is None else time.monotonic() + timeout, priority)

    async def ask(self, image: Any) -> Result | list[Result]:
        """One result, or for a list of images a list of them."""
        if not isinstance(image, (list, tuple)):
            return await self._one(image)
        room = _Room(len(image), self.owner.model.engine_config.batch_requests)
        tasks = [asyncio.create_task(self._one(each, room)) for each in image]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, image: Any, room: _Room | None = None) -> Result:
        async with room.under_way if room else nullcontext(), self.run(image, False, room) as (run, submission):
            await run.next()
            return run.front.result(run.skill, run.settings, run.generation, submission.metrics)

    def run(self, image: Any, streamed: bool, room: _Room | None = None) -> _UnderWay:
        return _UnderWay(self, image, streamed, room)

    async def submit(self, image: Any, streamed: bool, room: _Room | None) -> tuple[_Run, Submission]:
        """Submits the request; cancelled meanwhile, it is given up."""
        front, skill, settings, encoded = await self._prepared(image, room)
        run = _Run(front, skill, settings)

        def submit(wait: bool = False) -> Submission:
            put = run.put if streamed else None
            run.submission = front.submit(skill, encoded, settings, put, self.deadline, self.priority, wait)
            if run.left:  # before it could be told which request to give up
                front.engine.cancel(run.submission)
            return run.submission

        try:
            submission = await self._submitted(submit, skill, room)
        except BaseException:
            run.leave()
            raise
        submission.future.add_done_callback(run.put)
        return run, submission

    async def _prepared(self, image: Any, room: _Room | None) -> tuple[Frontend, Skill, Settings, EncodedImage | None]:
        limit = asyncio.timeout(None if self.deadline is None else max(0.0, self.deadline - time.monotonic()))
        self.owner._preparing += image is not None
        many = max(self.owner._preparing, room.images if room else 0) > ENOUGH_FOR_WORKERS
        try:
            async with limit:
                prepared = await asyncio.to_thread(self._prepare, image, many)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded(LATE) from None
        finally:
            self.owner._preparing -= image is not None
        if self.deadline is not None and time.monotonic() >= self.deadline:  # it may end before the limit is looked at
            raise DeadlineExceeded(LATE)
        return prepared

    def _prepare(self, image: Any, many: bool) -> tuple[Frontend, Skill, Settings, EncodedImage | None]:
        """All that takes long; in a thread of its own."""
        front, skill = self.owner.model._front, self.skill(self.owner.model)
        settings = make_settings(skill, self.given)
        return front, skill, settings, None if image is None else front.encode_beside(image, many)

    async def _submitted(self, submit: Callable[..., Submission], skill: Skill, room: _Room | None) -> Submission:
        """Submits on the loop what takes no time, and in a thread what does: making a constraint, and waiting for room
        in the engine, as a list does."""
        if isinstance(skill, Query) and skill.constraint is not None:
            if room is None:
                return await asyncio.to_thread(submit)
        else:
            try:
                return submit()
            except QueueFull:
                if room is None:
                    raise
        async with room.turn:
            return await asyncio.to_thread(submit, True)


class _UnderWay:
    """A request from submitting it to leaving the block, which gives it up unless it has ended.

    Not a generator with `asynccontextmanager`: at its end a loop closes all asynchronous generators, and would close
    that one before the stream it belongs to.
    """

    def __init__(self, plan: _Plan, image: Any, streamed: bool, room: _Room | None):
        self._plan, self._what = plan, (image, streamed, room)
        self._run: _Run | None = None

    async def __aenter__(self) -> tuple[_Run, Submission]:
        self._run, submission = await self._plan.submit(*self._what)
        return self._run, submission

    async def __aexit__(self, *_: Any) -> None:
        if self._run is not None:
            self._run.leave()


class _Room:
    """What a list of `images` images may take: so many requests under way, and one thread that waits for the engine."""

    def __init__(self, images: int, requests: int):
        self.images = images
        self.under_way, self.turn = asyncio.Semaphore(requests), asyncio.Lock()


class _Run:
    """Carries a request's tokens and its end from the engine's thread to a coroutine; never blocks the engine."""

    def __init__(self, front: Frontend, skill: Skill, settings: Settings):
        self.front, self.skill, self.settings = front, skill, settings
        self._loop, self._items = asyncio.get_running_loop(), asyncio.Queue()
        self.submission: Submission | None = None
        self.left = False

    def leave(self) -> None:
        """Gives the request up, unless it has ended; one that is still being submitted, as soon as it is."""
        self.left = True
        if self.submission is not None and not self.submission.future.done():
            self.front.engine.cancel(self.submission)

    def put(self, item: Token | Future[Generation], finish: FinishReason | None = None) -> None:
        """A token, or at the end the future."""
        with suppress(RuntimeError):  # the loop was closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._items.put_nowait, (item, finish))

    async def next(self) -> tuple[Token, FinishReason | None] | None:
        """The next token; None once there is a `generation`. Raises what has ended the request instead."""
        item, finish = await self._items.get()
        if isinstance(item, Token):
            return item, finish
        self.generation: Generation = item.result()
