"""Server-sent events: one line of data each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from jaxphoton.bodies.faults import Fault
from jaxphoton.requests.tokens import Event
from jaxphoton.server.failures import logged, reset
from jaxphoton.server.service import unless_left

DONE = b"data: [DONE]\n\n"  # for OpenAI's clients; that of moondream takes it for a broken event


def line(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def stream(
    request: Request,
    events: AsyncGenerator[Event, None],
    shown: Callable[[Event], Sequence[Any]],
    *,
    opening: Sequence[Any] = (),
    failed: Callable[[Fault], Sequence[Any]] | None = None,
    end: bytes = b"",
) -> StreamingResponse:
    """A response that shows events as they come.

    The first is waited for here, so that what is wrong with the ask is an error with a status of its own. An
    asynchronous generator all the way: a client that leaves cancels it at once.

    Args:
      shown: what clients see of an event.
      opening: what they see before the first.
      failed: what they see of a failure in the middle, in place of the rest; without it the connection is reset.
      end: what is sent behind the last.

    Raises: what the first event raises.
      ClientDisconnect: the client left before it.
    """
    try:
        first = await unless_left(request, anext(events))
    except BaseException:
        await events.aclose()
        raise

    async def values() -> AsyncGenerator[Any, None]:
        for value in (*opening, *shown(first)):
            yield value
        async for event in events:
            for value in shown(event):
                yield value

    async def lines() -> AsyncGenerator[bytes, None]:
        async with aclosing(events), aclosing(values()) as all_values:
            try:
                async for value in all_values:
                    yield line(value)
            except Exception as error:
                fault = logged(request.scope, error)
                if failed is None:
                    reset(request.scope)
                    return  # what is still sent goes nowhere
                for value in failed(fault):
                    yield line(value)
            else:
                yield end

    # The headers keep proxies from holding pieces back.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)
