"""The routes of the skills, as the `moondream` client asks them."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from jaxphoton.bodies.skills import answer_of, answer_type, body_type, ending_of, parsed
from jaxphoton.requests.answer import Result
from jaxphoton.requests.skill import Skill
from jaxphoton.requests.skills import SKILLS
from jaxphoton.requests.tokens import Event
from jaxphoton.server.events import stream
from jaxphoton.server.operation import Described, Operation
from jaxphoton.server.reading import URGENCY, read
from jaxphoton.server.service import Service, unless_left


def routes(service: Service) -> list[Operation]:
    """One a skill."""
    return [
        Operation("POST", f"/v1/{name}", _handler(service, name), _described(skill), service.admission)
        for name, skill in SKILLS.items()
    ]


def _described(skill: Skill) -> Described:
    return Described(
        f"To {skill.help}",
        body=body_type(skill.name),
        answer=answer_type(skill.name),
        events="moondream" if skill.streamed else "",
        parameters=URGENCY,
    )


def _handler(service: Service, skill: str):
    async def handle(request: Request) -> Response:
        body = await service.resolved(await read(request, partial(parsed, skill)))
        if body.stream and SKILLS[skill].streamed:
            return await stream(request, service.events(body), _segment if skill == "segment" else _text)
        result = await unless_left(request, service.result(body))
        return Response(msgspec.json.encode(answer_of(result, uuid.uuid4().hex)), media_type="application/json")

    return handle


def _text(event: Event) -> list[dict[str, Any]]:
    if isinstance(event, Result):
        return [{"completed": True, **ending_of(event)}]
    return [{**event, "completed": False}]


def _segment(event: Event) -> list[dict[str, Any]]:
    if isinstance(event, Result):
        return [{"type": "final", **event, **ending_of(event)}]
    kind = "path_delta" if "chunk" in event else "bbox"
    return [{"type": kind, **event, "completed": False}]
