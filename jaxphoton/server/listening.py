"""Listening: a socket, uvicorn on it, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from types import FrameType
from typing import Any

import uvicorn

from jaxphoton.server.app import application
from jaxphoton.server.batching import Batches
from jaxphoton.server.connection import Connection
from jaxphoton.server.options import ServerOptions
from jaxphoton.server.service import Service

_log = logging.getLogger(__name__)
_MOST, _OTHER_FILES = 10_000, 200  # connections; pipes, journals, libraries
_LAST_S = 5.0  # for requests that were ended to say so


def bound(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet.

    Raises:
      OSError: the port is taken, or there is no such address here.
    """
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
    except OSError:
        found.close()
        raise
    return found


def most_connections() -> int:
    """How many the files that this process may open leave room for.

    Without one of them free asyncio would try to accept, and log that it cannot, thousands of times a second.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else min(_MOST, max(files - _OTHER_FILES, files // 2))


class Listener(uvicorn.Server):
    """Serves until it is stopped: by `stop`, SIGTERM or SIGINT.

    It then goes on to listen, so that /health says why new requests are refused, until those under way have ended, or
    the time for this is over and they are ended. A second signal ends it at once.
    """

    def __init__(self, service: Service, options: ServerOptions, stored: Batches | None = None):
        # One class a server: uvicorn hands no options of ours to its connections.
        connection = type(
            "Connection", (Connection,), {"header_timeout": options.header_timeout, "most": most_connections()}
        )
        super().__init__(
            uvicorn.Config(
                application(service, options, stored),
                http=connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=options.keep_alive,
                timeout_graceful_shutdown=int(_LAST_S),
                h11_max_incomplete_event_size=options.max_headers,
            )
        )
        self._service, self._options = service, options
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None
        self._told = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._told:  # before there was a loop
            self._end()

    def stop(self) -> None:
        """Refuses new requests, and ends once those under way have ended. From any thread, any number of times; the
        second time at once."""
        self._told += 1
        if self._told > 1:
            self.should_exit = self.force_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not as in uvicorn, which raises the signal once more when all is done: being told to stop is no failure."""
        self.stop()

    def _end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self._ended())

    async def _ended(self) -> None:
        admission = self._service.admission
        admission.become("stopping")
        if admission.running:
            told = "stopping: requests under way (%d) have %g s to end; a second signal ends them at once"
            _log.warning(told, admission.running, self._options.grace)
        try:
            async with asyncio.timeout(self._options.grace):
                await admission.nobody()
        except TimeoutError:
            _log.warning("%d requests did not end within %g s and are ended", admission.running, self._options.grace)
            # Not waited for: this blocks until the device is free.
            ending: Any = asyncio.to_thread(self._service.backend.close)
            ending = asyncio.create_task(ending)
            await asyncio.wait({ending, asyncio.create_task(admission.nobody())}, timeout=_LAST_S)
        self.should_exit = True
