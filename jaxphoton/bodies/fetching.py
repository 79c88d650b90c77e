"""Pictures fetched from addresses that strangers send: never from inside the network that this machine stands in.

    fetcher = Fetcher()
    data = await fetcher.fetch("https://example.com/picture.jpg")

Needs aiohttp (extra `serve`).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

import jaxphoton
from jaxphoton.bodies.addresses import may_be_fetched_from
from jaxphoton.bodies.faults import BodyError

MOST_BYTES = 32 << 20
SECONDS = 30.0
CONNECT_S = 10.0
AT_ONCE = 16
REDIRECTS = 5
PORTS = frozenset((80, 443))

_LONGEST = 8192  # characters of an address
_CHUNK = 1 << 16
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
# Forms of IPv4 that resolvers take and nobody writes: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?")
_HEADERS = {
    "Accept": "image/*, */*;q=0.5",
    "Accept-Encoding": "identity",  # a compressed body may be of any size once it is read
    "User-Agent": f"jaxphoton/{jaxphoton.__version__}",
}


class _Refused(OSError):
    """A name stands for an address that nothing is fetched from."""


class Fetcher:
    """Fetches pictures for the coroutines of one loop.

    Every address is judged where a socket is made for it, so the one judged is the one connected to, whatever a name
    stands for at the next question, and wherever redirects lead. No proxy, cookie or password is used.
    """

    def __init__(
        self,
        *,
        most_bytes: int = MOST_BYTES,
        seconds: float = SECONDS,
        connect_s: float = CONNECT_S,
        at_once: int = AT_ONCE,
        ports: Container[int] = PORTS,
        allowed: Callable[[IPv4Address | IPv6Address], bool] = may_be_fetched_from,
        lookup: Callable[..., list[Any]] = socket.getaddrinfo,
    ):
        """
        Args:
          most_bytes: of a picture.
          seconds: for a picture, from its turn to its last byte; of these `connect_s` for each connection.
          at_once: pictures; more wait for their turn.
          ports: that are asked.
          allowed: whether a picture may come from an address.
          lookup: `socket.getaddrinfo`, or what answers in its place.
        """
        self._most_bytes, self._seconds, self._connect_s = most_bytes, seconds, connect_s
        self._ports, self._allowed = ports, allowed
        self._turns = asyncio.Semaphore(at_once)
        self._resolver = _Resolver(lookup)

    async def fetch(self, url: str, param: str = "image_url") -> bytes:
        """The bytes at an http or https address, whatever its server says that they are.

        Args:
          param: the part of the body that had the address.

        Raises:
          BodyError: why there are none, in words that tell nothing of this machine's network.
        """
        try:
            async with self._turns, asyncio.timeout(self._seconds):
                return await self._fetched(url)
        except TimeoutError:
            fault = f"it took longer than {self._seconds:g} s"
        except _Fault as told:
            fault = str(told)
        raise BodyError(f"{param} cannot be fetched: {fault}", param, "invalid_image_url")

    async def _fetched(self, url: str) -> bytes:
        try:
            async with self._session() as session:
                target = self._checked(url)
                for _ in range(REDIRECTS + 1):
                    async with session.get(target, allow_redirects=False) as reply:
                        if reply.status not in (301, 302, 303, 307, 308):
                            return await self._read(reply)
                        target = self._checked(reply.headers.get("Location", ""), target)
        except aiohttp.ClientSSLError as error:
            raise _Fault("its server has no valid certificate, or no TLS") from error
        # Of a name that is unknown here, one of this network, and a machine that refuses: which, is nobody's business.
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Fault("no public address of its host answers") from error
        except aiohttp.ServerTimeoutError as error:
            raise TimeoutError from error
        except (aiohttp.ClientError, ValueError) as error:
            raise _Fault("its server does not answer properly") from error
        raise _Fault(f"it redirects more than {REDIRECTS} times")

    def _session(self) -> aiohttp.ClientSession:
        # One for each picture: nothing of one answer is there for the next.
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._resolver, use_dns_cache=False, socket_factory=self._socket, force_close=True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
        )

    def _socket(self, found: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = found
        if not self._allowed(ip_address(place[0])):
            raise _Refused
        return socket.socket(family, kind, protocol)

    def _checked(self, text: str, source: URL | None = None) -> URL:
        """An address that may be asked, as far as it is known without a question to anybody.

        Args:
          source: of a redirect, from where.
        """
        if len(text) > _LONGEST:
            raise _Fault(f"it is longer than {_LONGEST} characters")
        try:
            url = source.join(URL(text)) if source else URL(text)
            host = url.raw_host or ""
        except ValueError:
            raise _Fault("it is not a valid address") from None
        if url.scheme not in ("http", "https"):
            raise _Fault("it is neither http nor https")
        if source and (source.scheme, url.scheme) == ("https", "http"):
            raise _Fault("it redirects from https to http")
        if url.raw_user is not None or url.raw_password is not None or "@" in url.raw_authority:
            raise _Fault("there is a user or a password in it")
        if url.port is None or url.port not in self._ports:
            raise _Fault(f"port {url.port} is not allowed")
        try:
            literal = ip_address(host)
        except ValueError:
            if not _HOST.fullmatch(host) or _NUMERIC.fullmatch(host):
                raise _Fault("its host is not valid") from None
        else:
            if not self._allowed(literal):
                raise _Fault("it is not a public address")
        return url

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        if reply.status != 200:
            raise _Fault(f"its server answers with status {reply.status}")
        if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _Fault("its server sends it compressed")
        data = bytearray()
        if (reply.content_length or 0) <= self._most_bytes:
            async for chunk in reply.content.iter_chunked(_CHUNK):
                data += chunk
                if len(data) > self._most_bytes:
                    break
            else:
                return bytes(data)
        raise _Fault(f"it is larger than {self._most_bytes:,} bytes")


class _Fault(Exception):
    """Why there is no picture, for whoever sent the address."""


class _Resolver(AbstractResolver):
    """Asks for names in threads of its own: slow answers to strangers' names take none from other work."""

    def __init__(self, lookup: Callable[..., list[Any]]):
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(AT_ONCE, "jaxphoton-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        def ask() -> list[Any]:
            try:
                return self._lookup(host, port, family=family, type=socket.SOCK_STREAM)
            except UnicodeError as error:  # a part of it is longer than names can be
                raise OSError(str(error)) from error

        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [
            ResolveResult(hostname=host, host=place[0], port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        """Of one session; the threads are there for the next."""
