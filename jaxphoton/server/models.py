"""What models there are, for OpenAI's clients and for those of Moondream Station in one."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jaxphoton.server.abilities import abilities
from jaxphoton.server.operation import Described, Operation, Parameter
from jaxphoton.server.service import Service

MODEL = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "name": {"type": "string"},
        "skills": {"type": "array", "items": {"type": "string"}},
        "reasoning": {"type": "boolean"},
    },
    "required": ["id", "object", "created", "owned_by", "name"],
}
LIST = {
    "type": "object",
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": MODEL},
        "models": {"type": "array", "items": MODEL},
    },
    "required": ["object", "data", "models"],
}


def routes(service: Service) -> list[Operation]:
    began = int(time.time())

    @cache
    def known() -> dict[str, Any]:
        family = service.backend.family()
        return {} if family is None else abilities(family.skills())

    def models() -> dict[str, dict[str, Any]]:
        return {name: _model(name, began) | known() for name in service.models.every()}

    async def every(request: Request) -> Response:
        listed = list((await asyncio.to_thread(models)).values())
        return JSONResponse({"object": "list", "data": listed, "models": listed})

    async def one(request: Request) -> Response:
        name, here = request.path_params["name"], await asyncio.to_thread(models)
        if name not in here:
            raise service.models.unknown(name)
        return JSONResponse(here[name])

    # A slash in a name comes encoded, and is decoded before routes are looked at.
    path = Parameter("name", {"type": "string"}, "path", required=True)
    return [
        Operation(
            "GET", "/v1/models", every, Described("Lists the names of the model, with each adapter too.", answer=LIST)
        ),
        Operation(
            "GET",
            "/v1/models/{name:path}",
            one,
            Described("Tells of one name of the model.", answer=MODEL, errors=(404,), parameters=(path,)),
        ),
    ]


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "jaxphoton", "name": name}
