"""What the routes ask, and the asking itself: who leaves gives up what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.models import ModelNames
from jaxphoton.bodies.pictures import Address, Picture
from jaxphoton.bodies.skills import Body
from jaxphoton.image.errors import ImageError
from jaxphoton.image.several import SeveralImages
from jaxphoton.requests.answer import Result
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.async_calls import within
from jaxphoton.requests.errors import NotFinite, QueueFull, UnknownAdapter, UnusableAdapter
from jaxphoton.requests.skills import FamilySkills
from jaxphoton.requests.tokens import Event
from jaxphoton.server.admission import Admission
from jaxphoton.server.backend import Backend
from jaxphoton.server.metrics import Metrics

T = TypeVar("T")
B = TypeVar("B", bound=Body)

Fetch = Callable[[str, str], Awaitable[bytes]]


class Service:
    """One model, as the routes see it.

    Args:
      names: of the model, for clients: at least one.
      fetch: gets the picture of an address that a part of a body has, as `bodies.fetching.Fetcher.fetch`; None where
        addresses are refused.

    Attributes:
      name: the first of them.
      models: all of them, and those with adapters.
      backend: which answers.
      admission: lets requests in.
      metrics: counts.
    """

    def __init__(self, backend: Backend, names: Sequence[str], fetch: Fetch | None = None):
        self.backend, self.name, self.models = backend, names[0], ModelNames(names, backend.adapters)
        self.admission = Admission(backend.most_requests, lambda: backend.failure)
        self.metrics = Metrics(backend.occupancy, lambda: self.admission.running)
        self._fetch = fetch
        self._skills: FamilySkills | None = None  # once they were asked for

    def start(self) -> None:
        """Makes it ready; blocks.

        Raises:
          EngineError: it cannot start.
        """
        self.backend.start()
        if self.admission.condition()[0] == "starting":  # it may have been told to stop meanwhile
            self.admission.become("ready")

    async def resolved(self, body: B) -> B:
        """A body, whose ask has the adapter that its model's name ends in.

        Raises:
          BodyError: there is no such model.
        """
        if self.models.is_plain(body.model):
            return body
        return await asyncio.to_thread(self.models.resolve, body)  # which may look into a folder

    async def result(self, body: Body) -> Result:
        """Raises: what asking raises; see `bodies.faults.fault_of`."""
        with self._faults():
            result = await self.backend.call(await self._picture(body), body.ask)
        self.metrics.answered(result)
        return result

    async def events(self, body: Body) -> AsyncGenerator[Event, None]:
        """The events of an ask, the last of which has "completed"; closing it gives the ask up."""
        with self._faults():
            events = self.backend.events(await self._picture(body), body.ask)
            try:
                async for event in events:
                    if isinstance(event, Result):
                        self.metrics.answered(event)
                    yield event
            finally:
                await events.aclose()

    async def _picture(self, body: Body) -> bytes | SeveralImages | None:
        """What a model takes for the picture of a body, or its pictures."""
        picture = body.picture
        if _addresses(picture):
            await asyncio.to_thread(self._check, body.ask)
        async with within(body.ask.deadline) if _addresses(picture) else nullcontext():
            if isinstance(picture, SeveralImages):
                return SeveralImages(tuple([await self._fetched(each) for each in picture.images]))
            return await self._fetched(picture)

    def _check(self, ask: Ask) -> None:
        """Refuses what the model cannot be asked, before its picture is fetched for it."""
        if self._skills is None and (family := self.backend.family()) is not None:
            self._skills = family.skills()
        if self._skills is not None:
            self._skills.form(ask.skill, ask.arguments)

    async def _fetched(self, picture: bytes | Address | None) -> bytes | None:
        if not isinstance(picture, Address):
            return picture
        url, param = picture.url, picture.param
        if self._fetch is None:
            message = "no pictures are fetched from addresses here: send a data address (data:image/jpeg;base64,...)"
            raise BodyError(f"{message}, or start the server with --allow-remote-images", param, "remote_images_off")
        return await self._fetch(url, param)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What is wrong with an ask is known by the model alone; anything else of these types is a fault of ours."""
        try:
            yield
        except (BodyError, ImageError, UnknownAdapter, UnusableAdapter, NotFinite):
            raise
        except QueueFull:
            raise self.admission.full() from None
        except (TypeError, ValueError, NotImplementedError) as error:
            raise BodyError(str(error)) from error


def _addresses(picture: Picture) -> bool:
    """Whether one must be fetched."""
    pictures = picture.images if isinstance(picture, SeveralImages) else (picture,)
    return any(isinstance(each, Address) for each in pictures)


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
