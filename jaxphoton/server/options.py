"""What the user of a server says about it."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Attributes:
    keys: any one of them opens the routes; none: they are open.
    hosts: what a Host header may say, without its port; None for anything.
    origins: of pages elsewhere that may ask from a browser; "*" for all.
    max_body: bytes of a body.
    max_bodies: bytes of all bodies together.
    max_file: bytes of a file that is uploaded, which goes to the disk as it comes.
    max_headers: bytes of the request line and the headers.
    header_timeout, body_timeout: seconds that the headers of a request, and its body, may take to come.
    keep_alive: seconds that a connection may stay open without a request.
    grace: seconds in which requests may end before a server that was told to stop ends them.
    access_log: log a line for each request.
    """

    keys: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    origins: tuple[str, ...] = ()
    max_body: int = 64 * MIB
    max_bodies: int = 1024 * MIB
    max_file: int = 512 * MIB
    max_headers: int = 32 << 10
    header_timeout: float = 20.0
    body_timeout: float = 60.0
    keep_alive: int = 75
    grace: float = 30.0
    access_log: bool = False
