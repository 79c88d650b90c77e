"""The route of chat completions: OpenAI's clients ask here, and the `moondream` client chats here."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from jaxphoton.bodies.chat import ChatForm, parsed
from jaxphoton.bodies.completion import ChatCompletion, Completion
from jaxphoton.server.events import DONE, stream
from jaxphoton.server.operation import Described, Operation
from jaxphoton.server.reading import URGENCY, read
from jaxphoton.server.service import Service, unless_left


def routes(service: Service) -> list[Operation]:
    async def handle(request: Request) -> Response:
        body = await service.resolved(await read(request, parsed))
        words = Completion(body, service.models.of(body.ask))
        if body.stream:
            return await stream(
                request,
                service.events(body),
                words.chunks,
                opening=[words.opening()],
                failed=None if _is_moondream(request) else lambda fault: [fault.body],
                end=DONE,
            )
        result = await unless_left(request, service.result(body))
        return Response(msgspec.json.encode(words.whole(result)), media_type="application/json")

    told = Described(
        "Answers the last message of a conversation, in the form of OpenAI's API.",
        body=ChatForm,
        answer=ChatCompletion,
        events="openai",
        parameters=URGENCY,
    )
    return [Operation("POST", "/v1/chat/completions", handle, told, service.admission)]


def _is_moondream(request: Request) -> bool:
    """Whether this is the client that takes an event with an error for nothing, and a clean end for success."""
    return request.headers.get("User-Agent", "").startswith("moondream-python/")
