"""JPEG 2000 files of more than 8 bits."""

from __future__ import annotations

from typing import IO

from PIL import Image

from jaxphoton.image.errors import Refused

_CODESTREAM = b"\xff\x4f\xff\x51"


def check(image: Image.Image, stream: IO[bytes]) -> None:
    """Refuses what Pillow reads wrongly: it rounds samples down to 8 bits so that the brightest become 0.

    Grey of 10 to 16 bits keeps its bits and is right.

    Raises:
      Refused: colour (or grey with transparency, or grey of 9 bits) with more than 8 bits a sample.
    """
    if image.mode.startswith("I"):
        return
    place = stream.tell()
    bits = max(_depths(stream), default=8)
    stream.seek(place)
    if bits > 8:
        raise Refused("unsupported", f"{bits}-bit JPEG 2000 is not supported, except for grey")


def _depths(stream: IO[bytes]) -> list[int]:
    """Bits of each component, from the SIZ marker that begins the codestream."""
    start = 0
    while True:
        stream.seek(start)
        head = stream.read(16)
        if len(head) < 16:
            return []
        if head.startswith(_CODESTREAM):
            break
        length, box = int.from_bytes(head[:4], "big"), head[4:8]
        inner = 16 if length == 1 else 8
        whole = int.from_bytes(head[8:], "big") if length == 1 else length
        if box == b"jp2c":
            start += inner
        elif whole >= inner:
            start += whole
        else:
            return []
    stream.seek(start + 40)
    count = int.from_bytes(stream.read(2), "big")
    return [(bits & 0x7F) + 1 for bits in stream.read(3 * count)[::3]]
