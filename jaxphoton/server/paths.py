"""Paths as clients write them."""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_NAMED = "/v1/models/"  # what follows is a name, which may have slashes


class Paths:
    """Takes several slashes for one, and one at the end for none: a client that was given an address with a slash at
    its end adds another. An encoded slash is one in the name of a model, and nowhere else."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = plain_path(scope["raw_path"].decode("latin-1"))
        await self._app(scope, receive, send)


def plain_path(raw: str) -> str:
    """The path that is meant by the one in a request line."""
    path = re.sub("/{2,}", "/", raw)
    path = path.removesuffix("/") or "/"
    if path.startswith(_NAMED):
        return _NAMED + unquote(path.removeprefix(_NAMED))
    return "/".join(unquote(part).replace("/", "%2F") for part in path.split("/"))
