"""Memory shared with a child process: unlinked files, which vanish with the last process that has them open."""

from __future__ import annotations

import fcntl
import os
import tempfile

# A block that held the bytes of a larger file is emptied; this holds the crops of every released model.
_KEPT_BYTES = 16 << 20


def new_block() -> int:
    """The descriptor of a file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        block = os.memfd_create("jaxphoton-image")
    else:
        with tempfile.TemporaryFile() as file:
            block = os.dup(file.fileno())
    if block > 2:
        return block
    # Free here where the caller closed a standard stream; in the worker these numbers are its streams.
    try:
        return fcntl.fcntl(block, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(block)


def write_block(block: int, data: memoryview) -> None:
    """Writes `data` (contiguous bytes) to the start of the block."""
    done = 0
    while done < len(data):
        done += os.pwrite(block, data[done:], done)


def read_block(block: int, into: memoryview) -> None:
    """Fills `into` (contiguous bytes) from the start of the block."""
    done = 0
    while done < len(into):
        count = os.preadv(block, [into[done:]], done)
        if not count:
            raise EOFError(f"a block of {done} bytes, {len(into)} expected")
        done += count


def take_bytes(block: int, length: int) -> bytearray:
    """So many bytes from the start of the block, which gives the memory of many back."""
    data = bytearray(length)
    read_block(block, memoryview(data))
    if length > _KEPT_BYTES:
        os.ftruncate(block, 0)
    return data
