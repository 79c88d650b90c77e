"""The route of chat completions: OpenAI's clients ask here, and the `moondream` client chats here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from jaxphoton.bodies.chat import ChatForm, parsed
from jaxphoton.bodies.completion import Completion
from jaxphoton.bodies.faults import fault_of
from jaxphoton.requests.tokens import Event
from jaxphoton.server.events import line
from jaxphoton.server.operation import Described, Operation
from jaxphoton.server.service import Service, unless_left

DONE = b"data: [DONE]\n\n"


def routes(service: Service) -> list[Operation]:
    async def handle(request: Request) -> Response:
        body = parsed(await request.body())
        words = Completion(body, service.name)
        if body.stream:
            return await _streamed(request, service.events(body), words)
        result = await unless_left(request, service.result(body))
        return Response(msgspec.json.encode(words.whole(result)), media_type="application/json")

    told = Described("Answers the last message of a conversation, in the form of OpenAI's API.", ChatForm)
    return [Operation("POST", "/v1/chat/completions", handle, told, service.admission)]


async def _streamed(request: Request, events: AsyncGenerator[Event, None], words: Completion) -> StreamingResponse:
    # The first is waited for here: what is wrong with the ask has a status of its own.
    first = await unless_left(request, anext(events))

    async def lines() -> AsyncGenerator[bytes, None]:
        async with aclosing(events):
            yield line(words.opening())
            try:
                for chunk in words.chunks(first):
                    yield line(chunk)
                async for event in events:
                    for chunk in words.chunks(event):
                        yield line(chunk)
            except Exception as error:
                yield line(fault_of(error).body)
                raise
            yield DONE

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
