"""Who may ask: by key, and what browsers may be made to ask by pages of other sites."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from jaxphoton.bodies.faults import BodyError
from jaxphoton.server.operation import Operation

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Browsers:
    """Refuses what a page of another site may make a browser ask.

    Args:
      hosts: what a Host header may say. A page whose name was made to mean this machine (DNS rebinding) has its own.
      origins: of pages elsewhere that may ask; "*" for all.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None, origins: Sequence[str]):
        self._app, self._hosts, self._origins = app, None if hosts is None else frozenset(hosts), frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._check(Headers(scope=scope))
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        host, origin = headers.get("host"), headers.get("origin")
        if self._hosts is not None and host is not None and _without_port(host) not in self._hosts:
            raise BodyError("this server is not called so; see --host", "Host", "host_not_allowed", 403)
        if origin is None or "*" in self._origins or origin in self._origins:
            return
        if host is None or origin.partition("://")[2].lower() != host.lower():
            raise BodyError(
                "pages of other sites may not ask this server; see --cors", "Origin", "origin_not_allowed", 403
            )


def _without_port(host: str) -> str:
    host = host.lower()
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


class Keys:
    """Lets in who has one of the keys, in either header that clients send, and whoever asks for what is open.

    Args:
      operations: those that are open are known by their paths.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str], operations: Iterable[Operation]):
        self._app, self._digests = app, [sha256(key.encode()).digest() for key in keys]
        self._open = [each for each in operations if each.described.open]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._known(Headers(scope=scope)) and not self._is_open(scope):
            raise BodyError(
                "a key is needed: Authorization: Bearer KEY, or X-Moondream-Auth: KEY",
                code="invalid_api_key",
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return any(each.matches(scope)[0] is Match.FULL for each in self._open)

    def _known(self, headers: Headers) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = [bearer.strip()] if kind.lower() == "bearer" else []
        given += headers.getlist("x-moondream-auth")
        digests = [sha256(each.encode("latin-1", "replace")).digest() for each in given]
        # All of them, whichever fits: the time says nothing.
        return any([hmac.compare_digest(digest, known) for digest in digests for known in self._digests])
