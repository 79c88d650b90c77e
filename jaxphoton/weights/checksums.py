"""Checksums of the files of a converted checkpoint, so that damage is noticed that its storage would read as numbers.

orbax checks its own records, but the numbers themselves lie in zstd frames without a checksum: bits that flip there
load as other weights. CRC-32 finds damage at gigabytes a second; it is no protection against intent.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from jaxphoton.files import open_regular, reason
from jaxphoton.messages import escaped, quoted
from jaxphoton.weights.mapped import WeightsError

BLOCK = 64 << 20  # bytes under one checksum: the blocks of a file are read side by side
PIECE = 1 << 20  # bytes of a block that are in memory at once
THREADS = min(8, os.cpu_count() or 1)


def checksums(folder: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """Of each file (by its path in the folder): its bytes, and the CRC-32 of every `BLOCK` of them.

    Raises:
      OSError: one of them is not a regular file, or cannot be read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return {name: _checksum(folder / name, pool) for name in names}


def verify(folder: Path, recorded: Any) -> None:
    """Compares the files with `recorded`, which `checksums` once gave; files that it does not name are ignored.

    Raises:
      WeightsError: a file is missing or damaged, or `recorded` is.
    """
    if not isinstance(recorded, dict) or not all(map(_sound, recorded.items())):
        raise WeightsError(f"{escaped(folder)}: the checksums in config.json are damaged")
    with ThreadPoolExecutor(THREADS) as pool:
        for name, (size, *blocks) in recorded.items():
            where = escaped(folder / name)
            try:
                found, *found_blocks = _checksum(folder / name, pool, size)
            except OSError as error:
                raise WeightsError(f"{where}: {reason(error)}") from None
            if found != size:
                raise WeightsError(f"{where}: damaged: {found} bytes, and {quoted(size)} were written")
            if found_blocks != blocks:
                raise WeightsError(f"{where}: damaged: its bytes are not those that were written")


def _checksum(path: Path, pool: ThreadPoolExecutor, size: int | None = None) -> list[int]:
    """Size and blocks; of a file that has not `size` bytes the size alone."""
    with open_regular(path) as file:
        found = os.fstat(file.fileno()).st_size
        if size not in (None, found):
            return [found]
        return [found, *pool.map(lambda start: _block(file, start), range(0, found, BLOCK))]


def _block(file: BinaryIO, start: int) -> int:
    checksum = 0
    for at in range(start, start + BLOCK, PIECE):
        piece = os.pread(file.fileno(), PIECE, at)
        checksum = zlib.crc32(piece, checksum)
        if len(piece) < PIECE:
            break
    return checksum


def _sound(item: tuple[Any, Any]) -> bool:
    name, numbers = item
    plain = not os.path.isabs(name) and ".." not in name.split("/") and name.isprintable()
    return plain and isinstance(numbers, list) and bool(numbers) and all(type(number) is int for number in numbers)
