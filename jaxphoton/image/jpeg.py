"""JPEGs that are larger than needed, and JPEGs of kinds that few programs read."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from PIL import Image

# MPO: a JPEG with further pictures behind it (previews, gain maps), as most phones write.
FORMATS = ("JPEG", "MPO")

# What the third byte of a frame header's marker says besides the usual Huffman-coded DCT (0xC0 to 0xC2).
_PROCESSES = {
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xC9: "arithmetic-coded",
    0xCA: "arithmetic-coded",
    0xCB: "arithmetic-coded lossless",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical",
}
_JPEG_LS = 0xF7
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}


def reduce(image: Image.Image, needed: Callable[[int, int], tuple[int, int]], turned: bool) -> tuple[int, int] | None:
    """Lets a JPEG that is not loaded yet be decoded at 1/2, 1/4 or 1/8 of its size, as far as that is enough.

    Args:
      needed: from (height, width) of the upright picture to what is enough of it.
      turned: whether height and width change places on the way to the upright picture.

    Returns:
      (height, width) of the whole upright picture; None if it stays as it is.
    """
    if image.format not in FORMATS:
        return None
    width, height = image.size
    upright = (width, height) if turned else (height, width)
    enough = needed(*upright)
    # Of the same mode: draft would also leave the colours out if asked to.
    image.draft(None, enough if turned else (enough[1], enough[0]))
    return upright if image.size != (width, height) else None


def unusual_kind(stream: IO[bytes]) -> str | None:
    """What is unusual about a JPEG, going by its frame header; None if nothing is, or there is no such header."""
    stream.seek(2)
    while True:
        mark = stream.read(2)
        while mark[:1] == b"\xff" and mark[1:] == b"\xff":  # fill bytes
            mark = b"\xff" + stream.read(1)
        if len(mark) < 2 or mark[0] != 0xFF:
            return None
        if mark[1] in _NO_LENGTH:
            continue
        length = int.from_bytes(stream.read(2), "big")
        if 0xC0 <= mark[1] <= 0xCF and mark[1] not in (0xC4, 0xC8, 0xCC) or mark[1] == _JPEG_LS:
            return _describe(mark[1], stream.read(6))
        if length < 2 or mark[1] in (0xD9, 0xDA):
            return None
        stream.seek(length - 2, 1)


def _describe(process: int, frame: bytes) -> str | None:
    if len(frame) < 6:
        return None
    bits, samples = frame[0], frame[5]
    if process == _JPEG_LS:
        return "JPEG-LS"
    words = [f"{bits}-bit"] if bits != 8 else []
    words += [_PROCESSES[process]] if process in _PROCESSES else []
    if not words and samples in (1, 3, 4):
        return None
    return " ".join([*words, "JPEG"]) + (f" with {samples} colour components" if samples not in (1, 3, 4) else "")
