"""TIFF files of any kind, written byte by byte; tifffile reads them back in the tests."""

from __future__ import annotations

import itertools
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def _lzw(data: bytes) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.lzw_encode(data))


def _packbits(data: bytes) -> bytes:
    # Literal runs alone: valid, if not small.
    return b"".join(bytes([len(run) - 1]) + run for run in _cut(data, 128))


def _zstd(data: bytes) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.zstd_encode(data))


# Number in the file, and how a strip or tile is packed.
COMPRESSIONS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (1, bytes),
    "lzw": (5, _lzw),
    "deflate": (8, zlib.compress),
    "old-deflate": (32946, zlib.compress),
    "packbits": (32773, _packbits),
    "lzma": (34925, lzma.compress),
    "zstd": (50000, _zstd),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """How the pixels lie in the file."""

    photometric: int = RGB
    bits: int = 8
    form: int = UNSIGNED
    order: Literal["<", ">"] = "<"
    planar: bool = False
    compression: str = "none"
    tile: int = 0
    rows: int = 0
    predictor: int = 1
    extra: tuple[int, ...] = ()

    @property
    def samples(self) -> int:
        return {RGB: 3, CMYK: 4}.get(self.photometric, 1) + len(self.extra)

    @property
    def dtype(self) -> np.dtype:
        letter = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[self.form]
        return np.dtype(f"{letter}{max(8, self.bits) // 8}")


def write(kind: Kind, values: np.ndarray, colours: np.ndarray | None = None, **tags: tuple[int, list[int]]) -> bytes:
    """The file of `values` [height, width, samples]; `colours` uint16 [2 ** bits, 3] for a palette.

    `tags` are further ones: a name (for the reader), then number and values (16 bits each).
    """
    height, width, samples = values.shape
    across, down = (kind.tile, kind.tile) if kind.tile else (width, kind.rows or height)
    planes = [values[..., [k]] for k in range(samples)] if kind.planar else [values]
    number, pack = COMPRESSIONS[kind.compression]
    pieces = [pack(_bytes(kind, piece)) for plane in planes for piece in _pieces(kind, plane, down, across)]
    entries: list[tuple[int, str, list[int]]] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [kind.bits] * samples),
        (259, "H", [number]),
        *([] if "ph" in tags else [(262, "H", [kind.photometric])]),
        (277, "H", [samples]),
        (284, "H", [2 if kind.planar else 1]),
        (339, "H", [kind.form] * samples),
        *([(317, "H", [kind.predictor])] if kind.predictor > 1 else []),
        *([(338, "H", list(kind.extra))] if kind.extra else []),
        *([(320, "H", colours.T.ravel().tolist())] if colours is not None else []),
        *((tag, "H", numbers) for tag, numbers in tags.values()),
    ]
    sizes = [len(piece) for piece in pieces]
    starts = [8 + place for place in itertools.accumulate([0, *(size + size % 2 for size in sizes[:-1])])]
    where = [(322, "I", [across]), (323, "I", [down]), (324, "I", starts), (325, "I", sizes)]
    strips = [(278, "I", [down]), (273, "I", starts), (279, "I", sizes)]
    entries += where if kind.tile else strips
    body = b"".join(piece + b"\0" * (len(piece) % 2) for piece in pieces)
    mark = b"II*\0" if kind.order == "<" else b"MM\0*"
    return mark + struct.pack(kind.order + "I", 8 + len(body)) + body + _directory(kind.order, entries, 8 + len(body))


def _directory(order: str, entries: list[tuple[int, str, list[int]]], start: int) -> bytes:
    head, tail = struct.pack(order + "H", len(entries)), b""
    for tag, code, numbers in sorted(entries):
        raw = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(raw) > 4:
            place = start + 2 + 12 * len(entries) + 4 + len(tail)
            tail += raw + b"\0" * (len(raw) % 2)
            raw = struct.pack(order + "I", place)
        head += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[code], len(numbers)) + raw.ljust(4, b"\0")
    return head + bytes(4) + tail


def _pieces(kind: Kind, plane: np.ndarray, down: int, across: int) -> Iterator[np.ndarray]:
    height, width = plane.shape[:2]
    for top in range(0, height, down):
        for left in range(0, width, across):
            piece = plane[top : top + down, left : left + across]
            if kind.tile:
                missing = (0, down - piece.shape[0]), (0, across - piece.shape[1]), (0, 0)
                piece = np.pad(piece, missing, "edge")
            yield piece


def _bytes(kind: Kind, piece: np.ndarray) -> bytes:
    if kind.bits in (1, 2, 4):
        bits = np.unpackbits(piece.astype(np.uint8)[..., None], axis=-1)[..., 8 - kind.bits :]
        return np.packbits(bits.reshape(len(piece), -1), axis=1).tobytes()
    if kind.predictor == 2:
        piece = np.concatenate([piece[:, :1], np.diff(piece, axis=1)], axis=1)
    if kind.predictor == 3:
        return _floats_apart(piece)
    return piece.astype(kind.dtype.newbyteorder(kind.order)).tobytes()


def _floats_apart(piece: np.ndarray) -> bytes:
    """The predictor for floating point: bytes of equal weight side by side, then differences."""
    height, width, samples = piece.shape
    size = piece.dtype.itemsize
    apart = piece.astype(piece.dtype.newbyteorder(">")).view(np.uint8).reshape(height, width * samples, size)
    apart = apart.transpose(0, 2, 1).reshape(height, -1)
    apart[:, samples:] -= apart[:, :-samples].copy()
    return apart.tobytes()


def _cut(data: bytes, length: int) -> Iterator[bytes]:
    return (data[k : k + length] for k in range(0, len(data), length))


def picture(kind: Kind, height: int = 35, width: int = 41) -> np.ndarray:
    """Values [height, width, samples] over the whole range of the kind, which differ in every sample."""
    y, x = np.mgrid[0:height, 0:width]
    parts = [x / (width - 1), y / (height - 1), (x + 2 * y) / (width + 2 * height - 3), x * 0 + 0.25, y * 0 + 0.75]
    values = np.stack([parts[k % len(parts)] for k in range(kind.samples)], axis=-1)
    if kind.extra[:1] == (1,):
        alpha = values[..., [-len(kind.extra)]]
        values[..., : -len(kind.extra)] *= alpha
    if kind.form == FLOAT:
        return values.astype(kind.dtype)
    top = 2**kind.bits - 1
    low = -(2 ** (kind.bits - 1)) if kind.form == SIGNED else 0
    return (np.rint(values * top).astype(np.int64) + low).astype(kind.dtype)


def kinds() -> Iterator[Kind]:
    """The whole matrix: form of a sample x colour x order x planes x strips or tiles x compression x predictor."""
    grey = [Kind(photometric, bits, UNSIGNED) for photometric in (0, 1) for bits in (1, 2, 4, 8, 16, 32)]
    grey += [Kind(photometric, bits, SIGNED) for photometric in (0, 1) for bits in (8, 16, 32)]
    grey += [Kind(photometric, bits, FLOAT) for photometric in (0, 1) for bits in (16, 32, 64)]
    grey += [Kind(1, bits, extra=extra) for bits in (8, 16) for extra in ((0,), (1,), (2,), (0, 0))]
    colour = [Kind(RGB, bits) for bits in (8, 16, 32)] + [Kind(RGB, bits, FLOAT) for bits in (16, 32, 64)]
    colour += [Kind(RGB, bits, extra=extra) for bits in (8, 16) for extra in ((0,), (1,), (2,), (2, 0))]
    colour += [Kind(RGB, 8, SIGNED), Kind(RGB, 16, SIGNED)]
    colour += [Kind(CMYK, bits) for bits in (8, 16)] + [Kind(PALETTE, bits) for bits in (1, 2, 4, 8, 16)]
    colour += [Kind(CMYK, 8, extra=(0,)), Kind(CMYK, 8, extra=(2,)), Kind(PALETTE, 8, extra=(2,))]
    for kind in grey + colour:
        for order, planar, tile, rows in itertools.product("<>", (False, True), (0, 16), (0, 8)):
            if (planar and kind.samples == 1) or (tile and rows):
                continue
            for compression in COMPRESSIONS:
                for predictor in (1, 2, 3):
                    if predictor > 1 and (kind.bits < 8 or compression in ("none", "packbits")):
                        continue
                    if (predictor == 3) != (kind.form == FLOAT) and predictor > 1:
                        continue
                    yield replace(
                        kind,
                        order=order,
                        planar=planar,
                        tile=tile,
                        rows=rows,
                        compression=compression,
                        predictor=predictor,
                    )
