"""PNG files without what a caption does not need: metadata is neither unpacked nor able to cost the picture."""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from jaxphoton.image.errors import Refused

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Pixels and what changes them. Of the frames of an animation only the first is wanted: it is in IDAT.
_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
# Texts that may tell the orientation; Pillow unpacks no more than 1 MiB.
_ORIENTATION_TEXT = re.compile(
    rb"tEXtRaw profile type exif\0|(?P<packed>zTXtRaw profile type exif\0\0|iTXtXML:com\.adobe\.xmp\0\x01\0.*?\0.*?\0)"
    rb"|iTXtXML:com\.adobe\.xmp\0\0",
    re.DOTALL,
)
_MAX_TEXT = 1 << 19


class Chunk(NamedTuple):
    """One chunk.

    Attributes:
      kind: four letters.
      raw: all of its bytes: length, kind, data, checksum.
      right: whether the checksum is.
    """

    kind: bytes
    raw: bytes
    right: bool

    @property
    def data(self) -> memoryview:
        return memoryview(self.raw)[8:-4]


def without_metadata(stream: IO[bytes], allow_truncated: bool) -> tuple[IO[bytes], list[str]]:
    """The file with its pixels and its orientation alone, and notes.

    What is damaged beyond a wrong checksum is left as it is, for the decoder to judge.

    Args:
      stream: a seekable file that starts with `SIGNATURE`.
      allow_truncated: use pixels in spite of a wrong checksum.

    Raises:
      Refused: the checksum of a chunk that is needed is wrong, or the chunk says that the file is no usual PNG.
    """
    kept, notes, wrong = [SIGNATURE], [], []
    seen, told, frames = set(), set(), 0
    for chunk in _chunks(stream):
        kind = chunk.kind
        if not chunk.right and kind not in wrong and kind != b"IEND":
            wrong.append(kind)
        if kind == b"CgBI":
            raise Refused("unsupported", "PNG files optimised for iOS (CgBI) are not supported")
        if not chunk.right and kind in _PIXELS - {b"tRNS", b"IEND"} and not (kind == b"IDAT" and allow_truncated):
            raise Refused("corrupt", f"the image data is damaged (wrong checksum in PNG chunk {kind.decode()})")
        if kind == b"acTL" and chunk.right and len(chunk.data) == 8:
            frames = int.from_bytes(chunk.data[:4], "big")
        elif kind == b"IDAT" and frames and not seen & {b"fcTL", b"IDAT"}:
            frames += 1  # a picture of its own for readers that show no animations
        if kind == b"IEND":
            kept.append(b"\0\0\0\0IEND\xaeB`\x82")
            break
        if kind == b"IDAT" or (kind in _PIXELS and chunk.right):
            kept.append(chunk.raw)
        elif chunk.right and kind not in told and _tells_orientation(chunk):
            kept.append(chunk.raw)
            told.add(kind)
        seen.add(kind)
    else:
        kept.append(stream.read())
    if wrong:
        notes.append("wrong checksum in PNG chunk " + ", ".join(kind.decode() for kind in wrong[:4]))
    if frames > 1:
        notes.append(f"first of {frames} frames")
    return io.BytesIO(b"".join(kept)), notes


def _chunks(stream: IO[bytes]) -> Iterator[Chunk]:
    """Whole chunks; the stream is then at the first that is not."""
    end = stream.seek(0, os.SEEK_END)
    place = len(SIGNATURE)
    while True:
        stream.seek(place)
        head = stream.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if place + length + 12 > end or not re.fullmatch(rb"[A-Za-z]{4}", kind):
            stream.seek(place)
            return
        raw = head + stream.read(length + 4)
        place += len(raw)
        yield Chunk(kind, raw, zlib.crc32(memoryview(raw)[4:-4]) == int.from_bytes(raw[-4:], "big"))


def _tells_orientation(chunk: Chunk) -> bool:
    if chunk.kind == b"eXIf":
        return True
    found = _ORIENTATION_TEXT.match(chunk.raw, 4)
    if not found or not found["packed"]:
        return bool(found)
    unpack = zlib.decompressobj()
    try:
        unpack.decompress(chunk.data[found.end() - 8 :], _MAX_TEXT)
    except zlib.error:
        return False
    return unpack.eof


def transparent_16_bits(image: Image.Image, stream: IO[bytes]) -> np.ndarray | None:
    """Which pixels of a loaded RGB picture of 16 bits are transparent: bool [height, width], None for none.

    One colour is, in all of its bits. Pillow keeps the upper bytes, and so would take others for it; told that the
    file's numbers begin with the lower byte, it reads these.
    """
    key = image.info.get("transparency")
    if not isinstance(key, tuple):
        return None
    stream.seek(0)
    try:
        with Image.open(stream, formats=["PNG"]) as lower:
            lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]  # type: ignore[attr-defined]
            high, low = np.asarray(image, np.uint16), np.asarray(lower, np.uint16)
    except (OSError, ValueError):  # a file cut short that is wanted all the same
        return None
    return ((high << 8 | low) == np.array(key)).all(axis=2)
