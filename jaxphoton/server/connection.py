"""A connection of uvicorn: resets where closing would look like success, errors in the form of all others, no dawdling.

Moondream's client takes every clean end of a stream for success, one without the last chunk too, so that a failure in
the middle has to reset the connection; ASGI has no word for that.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Any

import h11
import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from jaxphoton.bodies.faults import Fault

RESET = "jaxphoton.reset"  # in the extensions of a scope: a function that resets the connection
_NO_LINGER = struct.pack("ii", 1, 0)


class Connection(H11Protocol):
    """
    Attributes:
      header_timeout: seconds that the headers of a request may take to come; set on a subclass, as the next.
      most: connections at once; more are told so and closed.
    """

    header_timeout = 20.0
    most = 1000

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.app = _resettable(self.app, self)
        self._dawdling: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._end_with(Fault(429, "there are too many connections", code="too_many_connections"))
        else:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_headers()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        self._stop_waiting()
        super().on_response_complete()

    def reset(self) -> None:
        """Ends the connection in a way that no client can take for a complete answer."""
        transport = self.transport
        if (plain := transport.get_extra_info("socket")) is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
        if self.cycle is not None:
            self.cycle.disconnected = True  # nothing more is to be sent

    def send_400_response(self, msg: str) -> None:
        """What no parser can read, which is not always the client's fault: its headers may be too large."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer is on its way already
            return self.transport.close()
        message = "the headers are too large" if status == 431 else "this is not HTTP"
        self._end_with(Fault(status, message, code="bad_request_line"))

    def _end_with(self, fault: Fault) -> None:
        """Says what is wrong, whatever is asked, and closes."""
        body = msgspec.json.encode(fault.body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=fault.status, headers=headers, reason=STATUS_PHRASES.get(fault.status, b""))
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_headers(self) -> None:
        if self._dawdling is None and not self.transport.is_closing():
            self._dawdling = self.loop.call_later(self.header_timeout, self._dawdled)

    def _stop_waiting(self) -> None:
        if self._dawdling is not None:
            self._dawdling.cancel()
            self._dawdling = None

    def _dawdled(self) -> None:
        self._dawdling = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def _resettable(app: Any, connection: Connection) -> ASGIApp:
    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[RESET] = connection.reset
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:  # the server ends and waits no longer, for the rest of a body perhaps
            if not connection.cycle.response_complete:
                connection.reset()

    return called
