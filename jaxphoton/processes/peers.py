"""Processes on several machines that work as one: the first leads, and each of the others has a connection to it.

A process that ends, or gives no sign of life for a minute, is lost, and nothing goes on. Nobody is let in without the
token of the first.
"""

from __future__ import annotations

import contextlib
import hmac
import queue
import secrets
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from jaxphoton.processes.connection import Connection, PeerError, PeerGone
from jaxphoton.processes.pipe import Message

START_S = 300.0  # in which all must have come
GREETING_S = 5.0  # in which whoever has connected must say who it is
TOKEN_BYTES = 32

_NUMBER = struct.Struct(">I")


class Leader:
    """The first of several processes: listens from the start, and tells all the others the same.

    Args:
      host: the address under which the others find it; on a loopback address nobody else can.

    Attributes:
      processes: how many there are.
      port, token: what the others need.
      lost: the first that is gone, None while all are there.
    """

    def __init__(self, host: str, processes: int):
        self.processes = processes
        self.lost: PeerError | None = None
        self._server, self.token = _listening(host), secrets.token_bytes(TOKEN_BYTES)
        self.port: int = self._server.getsockname()[1]
        self._followers: dict[int, Connection] = {}
        self._values: dict[int, deque[Any]] = {number: deque() for number in range(1, processes)}
        self._changed, self._closed = threading.Condition(), False
        self._on_lost: Callable[[PeerError], Any] | None = None

    def accept(self, seconds: float = START_S) -> None:
        """Waits for all the others.

        Raises:
          PeerError: some have not come.
        """
        deadline = time.monotonic() + seconds
        with self._server:
            while missing := [str(number) for number in self._values if number not in self._followers]:
                self._server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    sock, (address, *_) = self._server.accept()
                except TimeoutError:
                    raise PeerError(f"not connected after {seconds:g} s: process {', '.join(missing)}") from None
                if (number := self._number(sock)) is not None:
                    who = f"process {number} of {self.processes} ({address.removeprefix('::ffff:')})"
                    self._followers[number] = Connection(sock, who, self._values_of(number), self._ended)

    def send(self, message: Message, data: bytes | None = None) -> None:
        """To all the others.

        Raises:
          PeerError: one is lost.
        """
        if self.lost is not None:
            raise self.lost
        for follower in self._followers.values():
            follower.send(message, data)

    def gathered(self, value: Any) -> list[Any]:
        """A JSON value of each process, in order, once all have given theirs; the same everywhere.

        Raises:
          PeerError: one is lost.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.lost or all(self._values.values()))
            if self.lost is not None:
                raise self.lost
            values = [value, *(given.popleft() for given in self._values.values())]
        self.send({"values": values})
        return values

    def watch(self, on_lost: Callable[[PeerError], Any]) -> None:
        """Has a function called, on a thread of its own, when one is lost; at once if one is already."""
        with self._changed:
            self._on_lost, lost = on_lost, self.lost
        if lost is not None:
            threading.Thread(target=on_lost, args=(lost,), daemon=True).start()

    def wait_lost(self, seconds: float) -> PeerError | None:
        """Which one is lost, if that turns out within so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.lost, seconds)
            return self.lost

    def close(self, reason: str | None = None) -> None:
        """Ends the others: in order, or with the fault that ends this process."""
        with self._changed:
            self._closed, self._on_lost = True, None
        for follower in self._followers.values():
            follower.close(reason)

    def _number(self, sock: socket.socket) -> int | None:
        """The number of a process that has connected; None, and closed, where it is a stranger."""
        sock.settimeout(GREETING_S)
        greeting, size = b"", TOKEN_BYTES + _NUMBER.size
        with contextlib.suppress(OSError):
            while len(greeting) < size and (more := sock.recv(size - len(greeting))):
                greeting += more
        number = _NUMBER.unpack(greeting[TOKEN_BYTES:])[0] if len(greeting) == size else 0
        if not hmac.compare_digest(greeting[:TOKEN_BYTES], self.token) or number not in self._values:
            sock.close()
            return None
        sock.settimeout(None)
        return number

    def _values_of(self, number: int) -> Callable[[Message], None]:
        def take(message: Message) -> None:
            with self._changed:
                self._values[number].append(message["value"])
                self._changed.notify_all()

        return take

    def _ended(self, error: PeerError | None) -> None:
        with self._changed:
            if self._closed or self.lost is not None:
                return
            self.lost, on_lost = error or PeerError("a process has ended before the first"), self._on_lost
            self._changed.notify_all()
        if on_lost is not None:
            on_lost(self.lost)


class Follower:
    """Any other of several processes, connected to the first.

    Args:
      host, port, token: of the `Leader`.
      number, processes: which this is, of how many.
      stuck: called where the first is lost and this process, which may wait in a launch, has not noticed: at once where
        the first is gone, and `seconds` after it has said why it ends.

    Attributes:
      lost: what is wrong with the first, None while it is there.
      over: the first has ended in order.

    Raises:
      PeerError: nobody answers there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: bytes,
        number: int,
        processes: int,
        stuck: Callable[[PeerError], Any] = lambda error: None,
        seconds: float = 5.0,
    ):
        self.number, self.processes, self._stuck, self._seconds = number, processes, stuck, seconds
        # Without a bound: the first is never further ahead than its pipeline, whose results need this process. A
        # bounded queue would keep the reader from noticing that the first is gone.
        self._messages: queue.SimpleQueue[Message | PeerError | None] = queue.SimpleQueue()
        self._noticed = threading.Event()
        self.lost: PeerError | None = None
        self.over = False
        sock = None
        try:
            sock = socket.create_connection((host, port), START_S)
            sock.sendall(token + _NUMBER.pack(number))
        except OSError as error:
            if sock is not None:
                sock.close()
            raise PeerError(f"process 0 at {host}:{port} does not answer: {error.strerror or error}") from error
        sock.settimeout(None)
        self._leader = Connection(sock, f"process 0 of {processes} ({host})", self._messages.put, self._ended)

    def receive(self) -> Message | None:
        """The next message; None when the first has ended in order.

        Raises:
          PeerError: it is lost, or ends with a fault.
        """
        message = self._messages.get()
        if not isinstance(message, dict):
            self._noticed.set()
            self.over = message is None
        if isinstance(message, PeerError):
            raise message
        return message

    def gathered(self, value: Any) -> list[Any]:
        """See `Leader.gathered`."""
        with contextlib.suppress(PeerError):  # `receive` says why
            self._leader.send({"value": value})
        message = self.receive()
        if message is None:
            raise PeerError("process 0 has ended")
        return message["values"]

    def close(self, reason: str | None = None) -> None:
        """Says that this process ends, and why."""
        self._noticed.set()
        self._leader.close(reason)

    def _ended(self, error: PeerError | None) -> None:
        self.lost = error
        self._messages.put(error)
        # JAX ends this process some tenths of a second after the first is gone, with pages that do not name it.
        seconds = 0.0 if isinstance(error, PeerGone) else self._seconds
        if error is not None and not self._noticed.wait(seconds):
            self._stuck(error)


Peers = Leader | Follower


def _listening(host: str) -> socket.socket:
    if host in ("127.0.0.1", "localhost"):
        return socket.create_server(("127.0.0.1", 0))
    if host == "::1":
        return socket.create_server(("::1", 0), family=socket.AF_INET6)
    # A machine's own name may mean a loopback address to itself.
    both = socket.has_dualstack_ipv6()
    return socket.create_server(("", 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both)
