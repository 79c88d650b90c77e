"""`AsyncModel`: the same models for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from jaxphoton.api import Model
from jaxphoton.requests.answer import Result
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.async_calls import AsyncCalls
from jaxphoton.requests.carrying import SessionCarrier
from jaxphoton.requests.chatting import conversation
from jaxphoton.requests.conversation import Messages
from jaxphoton.requests.images import EncodedImage
from jaxphoton.requests.methods import SpatialRefs
from jaxphoton.requests.skills import caption_arguments

Given = Mapping[str, Any] | None
Refs = SpatialRefs | None


class RequestOptions(TypedDict, total=False):
    """What every request of an AsyncModel may be given:
    timeout: seconds from the call after which it is given up with DeadlineExceeded; None for never.
    priority: a higher one is admitted first, within one the first come; 0 if not given.
    adapter: the name of weights to answer with beside the model's own.
    """

    timeout: float | None
    priority: int
    adapter: str | None


class AsyncModel:
    """The asyncio face of a `Model`: the same arguments and `RequestOptions`, the same results; the loop never
    blocks.

    Images are decoded in threads, or in the image workers once so many come at once that starting these pays.
    Cancelling the task that waits ends the request in the engine too. Any event loop will do, also several one after
    the other. An asynchronous context manager; leaving it closes the model. Besides what `Model` raises, requests
    raise:
      DeadlineExceeded: `timeout` seconds have passed.
      QueueFull: too many requests wait; try again when some have finished. Those of a list wait themselves.
      ModelClosed: the model was closed, before the request or under it.
      EngineError: the engine cannot start, or has failed; what the three above are, too.
    """

    def __init__(self, model: Model):
        self.model = model
        self._calls = AsyncCalls(SessionCarrier(model))

    @classmethod
    async def from_pretrained(cls, path_or_id: str = "shapes", **options: Any) -> AsyncModel:
        """Loads a model; see `Model.from_pretrained`."""
        return cls(await asyncio.to_thread(Model.from_pretrained, path_or_id, **options))

    async def load_adapter(self, name: str, adapter: Any) -> None:
        """Makes an adapter known by a name; see `Model.load_adapter`."""
        await asyncio.to_thread(self.model.load_adapter, name, adapter)

    async def encode_image(self, image: Any) -> EncodedImage:
        """Decodes and crops an image once; see `Model.encode_image`."""
        return await asyncio.to_thread(self.model.encode_image, image)

    async def caption(
        self,
        image: Any,
        length: str | int = "normal",
        settings: Given = None,
        *,
        type: str | None = None,
        extra: Sequence[str] = (),
        name: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Any:
        """Describes an image: {"caption": text}; see `Model.caption`."""
        arguments = caption_arguments(length, type, extra, name)
        return await self._calls.call(image, _ask(self.caption, "caption", arguments, settings, options))

    def stream_caption(
        self,
        image: Any,
        length: str | int = "normal",
        settings: Given = None,
        *,
        type: str | None = None,
        extra: Sequence[str] = (),
        name: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> TextStream:
        """A caption in pieces. Its timeout begins now, its work when the first piece is asked for (that of
        `Model.caption` begins at once); closed or dropped at any time, read or unread, it is given up."""
        arguments = caption_arguments(length, type, extra, name)
        ask = _ask(self.stream_caption, "caption", arguments, settings, options)
        return TextStream(self._calls, image, ask)

    async def query(
        self,
        image: Any = None,
        question: str | None = None,
        reasoning: bool | None = None,
        spatial_refs: Refs = None,
        settings: Given = None,
        **options: Unpack[RequestOptions],
    ) -> Any:
        """Answers a question about an image, or without one: {"answer": text}; see `Model.query`."""
        arguments = {"question": question, "reasoning": reasoning, "spatial_refs": spatial_refs}
        return await self._calls.call(image, _ask(self.query, "query", arguments, settings, options))

    def stream_query(
        self,
        image: Any = None,
        question: str | None = None,
        reasoning: bool | None = None,
        spatial_refs: Refs = None,
        settings: Given = None,
        **options: Unpack[RequestOptions],
    ) -> TextStream:
        """An answer in pieces, as `stream_caption`; its `result` has the reasoning from the first piece on."""
        arguments = {"question": question, "reasoning": reasoning, "spatial_refs": spatial_refs}
        return TextStream(self._calls, image, _ask(self.stream_query, "query", arguments, settings, options))

    async def detect(self, image: Any, object: str, settings: Given = None, **options: Unpack[RequestOptions]) -> Any:
        """Boxes; see `Model.detect`."""
        return await self._calls.call(image, _ask(self.detect, "detect", {"object": object}, settings, options))

    async def point(
        self,
        image: Any,
        object: str,
        spatial_refs: Refs = None,
        settings: Given = None,
        **options: Unpack[RequestOptions],
    ) -> Any:
        """Points; see `Model.point`."""
        arguments = {"object": object, "spatial_refs": spatial_refs}
        return await self._calls.call(image, _ask(self.point, "point", arguments, settings, options))

    async def segment(
        self,
        image: Any,
        object: str,
        spatial_refs: Refs = None,
        settings: Given = None,
        **options: Unpack[RequestOptions],
    ) -> Any:
        """An outline; see `Model.segment`."""
        arguments = {"object": object, "spatial_refs": spatial_refs}
        return await self._calls.call(image, _ask(self.segment, "segment", arguments, settings, options))

    def stream_segment(
        self,
        image: Any,
        object: str,
        spatial_refs: Refs = None,
        settings: Given = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """An outline in the events of `Model.segment`; closing the generator ends the request."""
        arguments = {"object": object, "spatial_refs": spatial_refs}
        return self._calls.events(image, _ask(self.stream_segment, "segment", arguments, settings, options))

    async def chat(
        self,
        messages: Messages,
        settings: Given = None,
        reasoning: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> Any:
        """The next message of a conversation; see `Model.chat`."""
        image, arguments, settings = conversation(messages, settings, reasoning)
        return await self._calls.call(image, _ask(self.chat, "chat", arguments, settings, options))

    def stream_chat(
        self,
        messages: Messages,
        settings: Given = None,
        reasoning: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> TextStream:
        """The next message in pieces, as `stream_query`."""
        image, arguments, settings = conversation(messages, settings, reasoning)
        return TextStream(self._calls, image, _ask(self.stream_chat, "chat", arguments, settings, options))

    async def aclose(self) -> None:
        """Ends the engine; requests under way raise EngineError. May be called again."""
        await asyncio.to_thread(self.model.close)

    async def __aenter__(self) -> AsyncModel:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()


class TextStream:
    """The pieces of one text, none of which breaks a character: an asynchronous iterator.

    Closing it, dropping it and cancelling the task that reads it end the request; reading slowly delays nobody.

    Attributes:
      result: as without streaming; complete when the pieces have ended.
    """

    def __init__(self, calls: AsyncCalls, image: Any, ask: Ask):
        self.result = Result()
        # A generator that knew this object would keep it from being dropped.
        self._pieces = calls.pieces(image, ask, self.result)

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def __anext__(self) -> str:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Gives the request up, unless it has ended."""
        await self._pieces.aclose()


def _ask(method: Any, skill: str, arguments: Mapping[str, Any], settings: Given, options: Mapping[str, Any]) -> Ask:
    """What a method asks; its timeout begins now.

    Raises:
      TypeError, ValueError: a wrong timeout, priority or adapter, or an argument that the method does not take.
    """
    if unknown := [name for name in options if name not in RequestOptions.__annotations__]:
        takes = [name for name in inspect.signature(method).parameters if name != "options"]
        takes += RequestOptions.__annotations__
        raise TypeError(f"{method.__qualname__} has no argument {unknown[0]!r}; it takes {', '.join(takes)}")
    timeout = options.get("timeout")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float, type(None))):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be at least 0 seconds, got {timeout}")
    deadline = None if timeout is None else time.monotonic() + min(timeout, sys.float_info.max)  # an int may be more
    return Ask(skill, arguments, settings, deadline, options.get("priority", 0), options.get("adapter"))


AsyncMoondream = AsyncModel  # the name from when there was one family
