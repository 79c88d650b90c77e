"""Server-sent events: one line of data each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.responses import StreamingResponse

from jaxphoton.requests.tokens import Event


def line(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def stream(events: AsyncGenerator[Event, None], shown: Callable[[Event], list[Any]]) -> StreamingResponse:
    """A response that shows events as they come.

    The first is waited for here, so that what is wrong with the ask is an error with a status of its own. An
    asynchronous generator all the way: a client that leaves cancels it at once.

    Raises: what the first event raises.
    """
    first = await anext(events)

    async def lines() -> AsyncGenerator[bytes, None]:
        async with aclosing(events):
            for value in shown(first):
                yield line(value)
            async for event in events:
                for value in shown(event):
                    yield line(value)

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
