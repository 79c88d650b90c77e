"""Messages between a parent and a child: JSON after its length, and behind it the bytes that it announces."""

from __future__ import annotations

import json
import struct
from typing import Any, Protocol

_LENGTH = struct.Struct(">I")

Message = dict[str, Any]


# A key of messages about work: it is given up, and, the other way, it has been.
CANCEL = "cancel"


class Readable(Protocol):
    """What frames come from."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """What frames go to."""

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
