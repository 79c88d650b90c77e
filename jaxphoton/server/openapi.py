"""`/openapi.json`: made from what parses the bodies and from what is said beside the routes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from jaxphoton import __version__
from jaxphoton.server.operation import Described, Operation, Parameter

_STREAMS = {
    "moondream": "With `stream`: events of one line each, `data: {JSON}`; the last is completed. A failure in the "
    "middle resets the connection.",
    "openai": "With `stream`: events of one line each, `data: {JSON}`, then `data: [DONE]`. A failure in the middle is "
    "an event with `error`.",
}
# Of one event: tools that check streams take it so, each by itself.
_EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["data"],
}
# What any route may answer: a wrong path or host, a header or a body that is too large or too slow, a crash.
_ANYWHERE = (400, 403, 404, 405, 408, 413, 431, 500)
# What the routes may answer for which a model works.
_ASKING = (429, 503, 504)


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(msgspec.Struct):
    """Every error."""

    error: ErrorDetail


def routes(operations: Sequence[Operation], keys: bool) -> list[Operation]:
    """
    Args:
      operations: all others.
      keys: whether a key is needed.
    """
    own = Described("This description", answer={"type": "object"}, open=True)

    async def openapi(request: Request) -> Response:
        return Response(content, media_type="application/json")

    route = Operation("GET", "/openapi.json", openapi, own)
    content = msgspec.json.encode(document([*operations, route], keys))
    return [route]


def document(operations: Sequence[Operation], keys: bool) -> dict[str, Any]:
    """The description of all that is not hidden, in OpenAPI 3.1."""
    told = [each for each in operations if not each.described.hidden]
    types = {id(kind): kind for each in told for kind in _types(each.described)} | {id(Error): Error}
    template = "#/components/schemas/{name}"
    schemas, components = msgspec.json.schema_components(list(types.values()), ref_template=template)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in told:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schema_of, keys)
    security = {"bearer": {"type": "http", "scheme": "bearer"}} | {
        "moondream": {"type": "apiKey", "in": "header", "name": "X-Moondream-Auth"}
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "jaxphoton", "version": __version__},
        "paths": paths,
        "components": {"schemas": components} | ({"securitySchemes": security} if keys else {}),
    }


def _types(described: Described) -> list[Any]:
    return [kind for kind in (described.body, described.answer, *described.also.values()) if isinstance(kind, type)]


def _operation(operation: Operation, schema_of: Mapping[int, Any], keys: bool) -> dict[str, Any]:
    described = operation.described

    def content(kind: Any, media: str) -> dict[str, Any]:
        schema = schema_of[id(kind)] if isinstance(kind, type) else kind
        return {media: {"schema": {} if schema is None else schema}}

    statuses = {*_ANYWHERE, *described.errors, *(_ASKING if operation.admitted else ())}
    statuses |= {401} if keys and not described.open else set()
    answers = {
        str(status): {"description": "error", "content": content(Error, "application/json")}
        for status in sorted(statuses)
    }
    answers |= {
        str(status): {"description": "answer", "content": content(kind, described.answer_type)}
        for status, kind in described.also.items()
    }
    answer = content(described.answer, described.answer_type)
    if described.events:
        answer["text/event-stream"] = {"schema": _EVENT | {"description": _STREAMS[described.events]}}
    answers[str(described.status)] = {"description": "answer", "content": answer}
    told: dict[str, Any] = {"summary": described.summary, "operationId": _name(operation), "responses": answers}
    if described.parameters:
        told["parameters"] = [_parameter(each) for each in described.parameters]
    if described.body is not None:
        told["requestBody"] = {"required": True, "content": content(described.body, described.body_type)}
    if keys:
        told["security"] = [] if described.open else [{"bearer": []}, {"moondream": []}]
    return told


def _name(operation: Operation) -> str:
    return operation.method.lower() + re.sub(r"\W+", "_", operation.path).rstrip("_")


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "schema": parameter.schema,
        "description": parameter.description,
    }
