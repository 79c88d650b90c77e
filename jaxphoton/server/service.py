"""What the routes ask, and the asking itself: who leaves gives up what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request

from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.pictures import Address
from jaxphoton.bodies.skills import Body
from jaxphoton.requests.answer import Result
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.tokens import Event

T = TypeVar("T")


class Asking(Protocol):
    """What answers: `requests.async_calls.AsyncCalls`."""

    async def call(self, image: Any, ask: Ask) -> Any: ...

    def events(self, image: Any, ask: Ask) -> AsyncGenerator[Event, None]: ...


class Service:
    """One model, as the routes see it.

    Attributes:
      name: of the model, for clients.
    """

    def __init__(self, calls: Asking, name: str):
        self.name, self._calls = name, calls

    async def result(self, body: Body) -> Result:
        """Raises: what asking raises; see `bodies.faults.fault_of`."""
        return await self._calls.call(await self._picture(body), body.ask)

    async def events(self, body: Body) -> AsyncGenerator[Event, None]:
        """The events of an ask, the last of which has "completed"; closing it gives the ask up."""
        events = self._calls.events(await self._picture(body), body.ask)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def _picture(self, body: Body) -> bytes | None:
        if isinstance(body.picture, Address):
            raise BodyError("addresses of pictures are not fetched; send the picture itself", "image_url")
        return body.picture


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Does work for as long as the client, whose body has been read, stays.

    Raises:
      ClientDisconnect: it has left; the work was cancelled.
    """
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, leaving):
            each.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)
