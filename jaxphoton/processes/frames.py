"""Messages between a parent and a child: JSON after its length, and behind it the bytes that it announces."""

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
    """The next message; where bytes came with it, they are its "bytes".

    Raises:
      EOFError: the other side is gone.
      ValueError: something else than a message.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    message = json.loads(_exactly(stream, length))
    if (size := message.get("bytes")) is not None:
        message["bytes"] = _exactly(stream, size)
    return message


def pack(message: Message, data: bytes | None = None) -> bytes:
    """A message as `read_frame` takes it, to be followed by `data`, if any.

    Raises:
      TypeError, ValueError: it has values that JSON has not.
    """
    body = json.dumps(message if data is None else message | {"bytes": len(data)}).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def send(stream: Writable, frame: bytes, data: bytes | None = None) -> None:
    """Writes what `pack` made, and the bytes it was given."""
    stream.write(frame)
    if data:
        stream.write(data)
    stream.flush()


def _exactly(stream: Readable, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("end of the stream of messages")
    return data
