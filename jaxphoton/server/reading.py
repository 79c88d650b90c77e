"""Bodies of requests, as asks."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.skills import Body, deadline_of
from jaxphoton.server.operation import Parameter

T = TypeVar("T", bound=Body)

TIMEOUT, PRIORITY = "X-Request-Timeout", "X-Priority"
URGENCY = (
    Parameter(TIMEOUT, {"type": "number", "minimum": 0}, "header", description="seconds until it is given up"),
    Parameter(PRIORITY, {"type": "integer"}, "header", description="higher ones are admitted first"),
)
_LARGE = 1 << 20  # takes milliseconds to be parsed, in which nobody else would be served


async def read(request: Request, parse: Callable[[bytes], T]) -> T:
    """The body of a request; what it does not say of its urgency, the headers may.

    Args:
      parse: makes an ask of it.

    Raises:
      BodyError: there is something wrong with it.
      ClientDisconnect: it ended in the middle.
    """
    data = await request.body()
    body = parse(data) if len(data) < _LARGE else await asyncio.to_thread(parse, data)
    request._body = b""  # the picture was taken out of it: it need not be held for as long as the answer takes
    return urgent(body, request)


def urgent(body: T, request: Request) -> T:
    """The ask with the deadline and the priority that the headers give, where it has none of its own.

    Raises:
      BodyError: they are no numbers.
    """
    ask, headers = body.ask, request.headers
    if ask.deadline is None and (timeout := headers.get(TIMEOUT)) is not None:
        try:
            ask = dataclasses.replace(ask, deadline=deadline_of(float(timeout)))
        except ValueError:
            raise BodyError(f"{TIMEOUT} must be seconds, at least 0", TIMEOUT) from None
    if ask.priority == 0 and (priority := headers.get(PRIORITY)) is not None:
        try:
            ask = dataclasses.replace(ask, priority=int(priority[:20]))
        except ValueError:
            raise BodyError(f"{PRIORITY} must be a whole number", PRIORITY) from None
    return body if ask is body.ask else dataclasses.replace(body, ask=ask)
