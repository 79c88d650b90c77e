"""How large requests may be, and how long they may take to come."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxphoton.bodies.faults import BodyError, Fault
from jaxphoton.server.failures import error_response
from jaxphoton.server.options import ServerOptions
from jaxphoton.server.paths import plain_path

UPLOADS = "/v1/files"
_FORM = 64 << 10  # of a file's body besides the file
_DRAINED_S = 5.0  # for the rest of a body that nobody wants
_DRAINED = 2  # times as many bytes as a body may have: most that are too large are not much too large


class Limits:
    """Counts bodies while they are read, those that do not say their size too.

    A body that nobody has read when its answer begins is read and dropped, within bounds: clients that send before they
    look would else see a broken connection instead of the error. So this is the outermost layer, which raises nothing:
    what is wrong with a body is raised where it is read.
    """

    def __init__(self, app: ASGIApp, options: ServerOptions):
        self._app, self._options = app, options
        self._held = 0  # bytes of all bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        upload = scope["method"] == "POST" and plain_path(scope["raw_path"].decode("latin-1")) == UPLOADS
        body = _Body(self, receive, Headers(scope=scope), self._options, upload)
        send = body.before(send)
        if _header_bytes(scope) > self._options.max_headers:
            message = f"the headers are larger than {self._options.max_headers:,} bytes"
            return await error_response(Fault(431, message, code="headers_too_large"))(scope, receive, send)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self.drop(body)

    def hold(self, size: int) -> None:
        """
        Raises:
          BodyError: there is no room for so many bytes more.
        """
        if self._held + size > self._options.max_bodies:
            raise BodyError(
                "too many large bodies are being read", code="queue_full", status=429, headers={"Retry-After": "5"}
            )
        self._held += size

    def drop(self, body: _Body) -> None:
        """What has come of it is in memory no more."""
        self._held -= body.held
        body.held = 0


def _header_bytes(scope: Scope) -> int:
    line = len(scope["raw_path"]) + len(scope["query_string"])
    return line + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


class _Body:
    """One body on its way.

    Args:
      upload: it goes to the disk, and may be as large as a file, with as much more time.

    Attributes:
      held: bytes of it that are in memory.
    """

    def __init__(self, limits: Limits, receive: Receive, headers: Headers, options: ServerOptions, upload: bool):
        self._limits, self._receive, self._upload = limits, receive, upload
        self._most = options.max_file + _FORM if upload else options.max_body
        self._seconds = options.body_timeout * max(1.0, self._most / options.max_body)
        self._deadline = time.monotonic() + self._seconds
        told = headers.get("content-length", "0")
        self._too_large = told.isdecimal() and int(told) > self._most
        # Who asks before sending, and is told at once that it is too much, sends nothing.
        self._asks = headers.get("expect", "").lower() == "100-continue"
        self._begun = self._ended = False
        self._size = self.held = 0

    async def receive(self) -> Message:
        if self._ended:
            return await self._receive()
        if self._too_large:
            raise self._larger()
        message = await self._next(self._deadline)
        size = len(message.get("body", b""))
        if self._size + size > self._most:
            raise self._larger()
        self._size += size
        if not self._upload:
            self._limits.hold(size)
            self.held += size
        return message

    def before(self, send: Send) -> Send:
        """What sends the answer, once the body has come."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and not self._ended:
                self._limits.drop(self)  # it was refused: others need not wait for its end
                if not (self._asks and not self._begun):
                    await self._drain()
                if not self._ended:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        return sent

    async def _drain(self) -> None:
        most, deadline = _DRAINED * self._most, time.monotonic() + _DRAINED_S
        with suppress(BodyError):  # the answer is given all the same
            while not self._ended and most > 0:
                most -= len((await self._next(deadline)).get("body", b""))

    async def _next(self, deadline: float) -> Message:
        self._begun = True
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise BodyError(
                f"the body did not come within {self._seconds:g} s", code="body_timeout", status=408
            ) from None
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def _larger(self) -> BodyError:
        return BodyError(f"the body is larger than {self._most:,} bytes", code="body_too_large", status=413)
