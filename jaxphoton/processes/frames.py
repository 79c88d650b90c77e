"""Messages between a parent and its child process: JSON after its length, and bytes behind it where it says so."""

from __future__ import annotations

import json
import struct
from typing import Any, Protocol

_LENGTH = struct.Struct(">I")

Message = dict[str, Any]


class Readable(Protocol):
    """What frames come from."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """What frames go to."""

    def write(self, data: bytes, /) -> Any: ...
    def flush(self) -> Any: ...


def read_frame(stream: Readable) -> Message:
    """The next message.

    Raises:
      EOFError: the other side is gone.
      ValueError: something else than a message.
    """
    head = stream.read(_LENGTH.size)
    if len(head) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        body = stream.read(length)
        if len(body) == length:
            return json.loads(body)
    raise EOFError("end of the stream of messages")


def pack(message: Message) -> bytes:
    """A message as `read_frame` takes it.

    Raises:
      TypeError, ValueError: it has values that JSON has not.
    """
    body = json.dumps(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def send(stream: Writable, frame: bytes, data: bytes | None = None) -> None:
    """Writes what `pack` made, and bytes that the message has announced."""
    stream.write(frame)
    if data:
        stream.write(data)
    stream.flush()


def write_frame(stream: Writable, message: Message) -> None:
    send(stream, pack(message))
