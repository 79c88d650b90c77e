"""Counts what passes."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxphoton.server.metrics import Metrics

_log = logging.getLogger("jaxphoton.access")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}  # whoever asks could make any number of others
LEFT = 499  # the client left before its answer began


class Meter:
    """Counts requests by their route, and logs a line for each where that is wanted: no query, no header, no body."""

    def __init__(self, app: ASGIApp, metrics: Metrics, access_log: bool):
        self._app, self._metrics, self._access_log = app, metrics, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.monotonic(), LEFT

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            # Not the path: whoever asks could make any number of series.
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.monotonic() - began
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.request(route, method, status, seconds)
            if self._access_log:
                client = (scope.get("client") or ("-",))[0]
                _log.info("%s %s %s %d %.3f s", client, scope["method"], route, status, seconds)
