"""Pipes to a child process that may be stopped, how long it is waited for, and the messages that go through.

A message is JSON after its length, and behind it the bytes that it announces.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Callable
from typing import IO, Any, Protocol

_LENGTH = struct.Struct(">I")
_READ_BYTES = 1 << 16  # at once: what a pipe holds

Message = dict[str, Any]
# A key of messages about work: it is given up, and, the other way, it has been.
CANCEL = "cancel"


class Readable(Protocol):
    """What messages come from."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """What messages go to."""

    def write(self, data: bytes, /) -> Any: ...


def read_frame(stream: Readable) -> Message:
    """The next message; where bytes came with it, they are its "bytes".

    Raises:
      EOFError: the other side is gone.
      ValueError: something else than a message.
    """
    head = stream.read(_LENGTH.size)
    size = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
    body = stream.read(size) if size >= 0 else b""
    if len(body) != size:
        raise EOFError("end of the stream of messages")
    message = json.loads(body)
    if (size := message.get("bytes")) is not None:
        message["bytes"] = stream.read(size)
        if len(message["bytes"]) != size:
            raise EOFError("end of the bytes of a message")
    return message


def write_frame(stream: Writable, message: Message, data: bytes | None = None) -> None:
    """Writes a message, and bytes behind it.

    Raises:
      TypeError, ValueError: it has values that JSON has not.
    """
    body = json.dumps(message if data is None else message | {"bytes": len(data)}).encode("ascii")
    stream.write(_LENGTH.pack(len(body)) + body)
    if data:
        stream.write(data)


class TookTooLong(Exception):
    """A child was waited for as long as it may take: it is stopped, or hangs."""


class WaitLimit:
    """How long a child was waited for, in seconds in which this process ran too.

    Ctrl-Z and a laptop that sleeps stop both, while clocks may run on. So of the time between two looks at most a
    `step` counts: a child is not blamed for the time in which nobody could have worked.
    """

    def __init__(
        self,
        limit: float,
        step: float,
        fault: str = "took longer than {:g} s",
        clock: Callable[[], float] = time.monotonic,
    ):
        self.limit, self.step, self._fault, self._clock = limit, step, fault, clock
        self.restart()

    def restart(self) -> None:
        self._waited, self._looked = 0.0, self._clock()

    def check(self) -> None:
        """One look; not more than a step apart.

        Raises:
          TookTooLong: the limit has passed.
        """
        now = self._clock()
        self._waited += min(self.step, now - self._looked)
        self._looked = now
        if self._waited >= self.limit:
            raise TookTooLong(self._fault.format(self.limit))


def step_of(limit: float) -> float:
    """How often to look, for a limit: seldom enough to cost nothing, often enough to be about right."""
    return 1.0 if limit > 8 else limit / 8


class Pipe:
    """Our end of a pipe, like a binary file; never waits for the child without looking up."""

    def __init__(self, raw: IO[bytes], step: float, check: Callable[[], None]):
        """
        Args:
          raw: the end, unbuffered; not used by others from here on.
          check: called after every `step` seconds in which nothing could be read or written; what it raises ends
            the wait.
        """
        os.set_blocking(raw.fileno(), False)
        self._raw, self._step, self._check = raw, step, check
        self._buffer = bytearray()
        self._poll = select.poll()
        self._poll.register(raw, select.POLLOUT if raw.writable() else select.POLLIN)

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer only where the stream ends."""
        while len(self._buffer) < size and self._fill():
            pass
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def readline(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0 and self._fill():
            pass
        return self.read(end + 1 if end >= 0 else len(self._buffer))

    def write(self, data: bytes | memoryview, /) -> None:
        rest = memoryview(data)
        while rest := rest[self._raw.write(rest) or 0 :]:
            self._wait()

    def close(self) -> None:
        self._raw.close()

    def _fill(self) -> bool:
        """Reads what is there, once something is; False at the end of the stream."""
        self._wait()
        data = self._raw.read(_READ_BYTES)
        self._buffer += data or b""
        return data != b""  # None: it was only said to be there

    def _wait(self) -> None:
        while not self._poll.poll(1000 * self._step):
            self._check()
