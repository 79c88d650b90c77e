"""Image files for the tests; made by hand where Pillow writes no such thing."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxphoton.image.decode import REASONS, ImageError, decode


def fault(source: Any, **options: Any) -> ImageError:
    """The error that `decode` raises; one there must be."""
    with pytest.raises(ImageError) as caught:
        decode(source, **options)
    assert caught.value.reason in REASONS
    assert str(caught.value) == f"{caught.value.source}: {caught.value.fault}"
    return caught.value


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of `image` as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colour picture with some noise, uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    ramps = np.stack([x * 255 / max(1, width - 1), y * 255 / max(1, height - 1), (x + y) % 256], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 4, ramps.shape)
    return np.clip(ramps + noise, 0, 255).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG file of any depth and colour type; `rows` are the unfiltered bytes with a 0 before each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def png16(values: np.ndarray, *extra: bytes) -> bytes:
    """A 16-bit PNG of uint16 [height, width] (grey) or [height, width, 3 or 4]."""
    height, width = values.shape[:2]
    colour = {1: 0, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, 16, colour, rows, *extra)
