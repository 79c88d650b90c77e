"""What the routes ask, and the asking itself: who leaves gives up what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.pictures import Address
from jaxphoton.bodies.skills import Body
from jaxphoton.image.errors import ImageError
from jaxphoton.messages import quoted
from jaxphoton.requests.answer import Result
from jaxphoton.requests.async_calls import within
from jaxphoton.requests.errors import QueueFull
from jaxphoton.requests.tokens import Event
from jaxphoton.server.admission import Admission
from jaxphoton.server.backend import Backend
from jaxphoton.server.metrics import Metrics

T = TypeVar("T")

CHAT_DEFAULT = "moondream3-preview"  # what the `moondream` client asks for where nothing was said

Fetch = Callable[[str, str], Awaitable[bytes]]


class Service:
    """One model, as the routes see it.

    Args:
      names: of the model, for clients: at least one.
      fetch: gets the picture of an address that a part of a body has, as `bodies.fetching.Fetcher.fetch`; None where
        addresses are refused.

    Attributes:
      name: the first of them.
      names: all of them.
      backend: which answers.
      admission: lets requests in.
      metrics: counts.
    """

    def __init__(self, backend: Backend, names: Sequence[str], fetch: Fetch | None = None):
        self.backend, self.names, self.name = backend, tuple(names), names[0]
        self.admission = Admission(backend.most_requests, lambda: backend.failure)
        self.metrics = Metrics(backend.occupancy, lambda: self.admission.running)
        self._accepted = {*names, *(name.rsplit("/", 1)[-1] for name in names), CHAT_DEFAULT}
        self._fetch = fetch

    def start(self) -> None:
        """Makes it ready; blocks.

        Raises:
          EngineError: it cannot start.
        """
        self.backend.start()
        if self.admission.condition()[0] == "starting":  # it may have been told to stop meanwhile
            self.admission.become("ready")

    def check_model(self, name: str | None) -> None:
        """
        Raises:
          BodyError: it is the name of no model that is here.
        """
        if not name or name in self._accepted:
            return
        base, _, step = name.rpartition("@")
        if step.isdecimal() and "/" in base:
            raise BodyError("adapters are not supported yet: give the model without one", "model", "adapters")
        raise self.no_model(name)

    def no_model(self, name: str) -> BodyError:
        """What those are told that ask for a model which is not here."""
        message = f"there is no model {quoted(name)} here; there is {', '.join(self.names)}"
        return BodyError(message, "model", "model_not_found", 404)

    async def result(self, body: Body) -> Result:
        """Raises: what asking raises; see `bodies.faults.fault_of`."""
        self.check_model(body.model)
        with self._faults():
            result = await self.backend.call(await self._picture(body), body.ask)
        self.metrics.answered(result)
        return result

    async def events(self, body: Body) -> AsyncGenerator[Event, None]:
        """The events of an ask, the last of which has "completed"; closing it gives the ask up."""
        self.check_model(body.model)
        with self._faults():
            events = self.backend.events(await self._picture(body), body.ask)
            try:
                async for event in events:
                    if isinstance(event, Result):
                        self.metrics.answered(event)
                    yield event
            finally:
                await events.aclose()

    async def _picture(self, body: Body) -> bytes | None:
        if not isinstance(body.picture, Address):
            return body.picture
        url, param = body.picture.url, body.picture.param
        if self._fetch is None:
            message = "no pictures are fetched from addresses here: send a data address (data:image/jpeg;base64,...)"
            raise BodyError(f"{message}, or start the server with --allow-remote-images", param, "remote_images_off")
        async with within(body.ask.deadline):
            return await self._fetch(url, param)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What is wrong with an ask is known by the model alone; anything else of these types is a fault of ours."""
        try:
            yield
        except (BodyError, ImageError):
            raise
        except QueueFull:
            raise self.admission.full() from None
        except (TypeError, ValueError, NotImplementedError) as error:
            raise BodyError(str(error)) from error


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Does work for as long as the client, whose body has been read, stays.

    Raises:
      ClientDisconnect: it has left; the work was cancelled.
    """
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, leaving):
            each.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
