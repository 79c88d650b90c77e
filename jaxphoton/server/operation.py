"""A route, and what `/openapi.json` says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from jaxphoton.server.admission import Admission

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """In a query or a path.

    Attributes:
      schema: of JSON.
      place: "query", "path" or "header".
    """

    name: str
    schema: Mapping[str, Any]
    place: str = "query"
    required: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """What clients are told of an operation.

    Attributes:
      summary: in a few words.
      body: the type that parses its body (msgspec), or a schema of JSON; None for none.
      body_type: the content type of its body.
      answer: the type of its answer, or a schema; None for what is no JSON.
      answer_type: the content type of its answer.
      events: whose stream of events it can answer with: "moondream", "openai", or "" for no stream.
      status: of success.
      also: answers with other statuses, by these.
      errors: further statuses that it answers with.
      parameters: in its path and query.
      open: whether it is answered without a key.
      hidden: left out.
    """

    summary: str = ""
    body: Any = None
    body_type: str = "application/json"
    answer: Any = None
    answer_type: str = "application/json"
    events: str = ""
    status: int = 200
    also: Mapping[int, Any] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    open: bool = False
    hidden: bool = False


class Operation(Route):
    """A method of a path.

    Args:
      admission: counts it among the requests that the model works for, and may refuse it.

    Attributes:
      described: for `/openapi.json`.
      method: of HTTP.
      admitted: whether a model works for it.
    """

    def __init__(
        self,
        method: str,
        path: str,
        handler: Handler,
        described: Described = Described(),  # noqa: B008 (it is frozen)
        admission: Admission | None = None,
    ):
        super().__init__(path, handler, methods=[method])
        self.method, self.described, self._admission = method, described, admission
        self.admitted = admission is not None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._admission is None or (self.methods and scope["method"] not in self.methods):
            return await super().handle(scope, receive, send)
        with self._admission.entered():
            await super().handle(scope, receive, send)
