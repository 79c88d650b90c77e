"""Tars opened, unpacked where they are compressed."""

from __future__ import annotations

import importlib
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from jaxphoton.batch.sources.archive import members
from jaxphoton.batch.sources.remote import copy_into, open_seekable
from jaxphoton.batch.sources.retry import RETRY, RetryPolicy

# Archives by suffix; those of the second kind have to be unpacked first.
TAR_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
UNREAD_SUFFIXES = (".tar.zst", ".tzst", ".tar.lz4", ".tar.lzma", ".tar.lz", ".tar.br", ".zip", ".7z", ".rar")
# The first bytes, whatever the suffix is; and the module that reads them.
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "lzma"}
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "a zip", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR"}


def open_tar(path: str, retry: RetryPolicy = RETRY) -> IO[bytes]:
    """Opens a tar to be read by `samples`; one that is compressed as an unpacked copy on disk, up to where it is
    damaged.

    Raises:
      OSError: it cannot be read.
    """
    file = open_seekable(path, retry)
    if (kind := _kind(file)) is None:
        return file
    with _unpacked(file, kind) as unpacked:
        copy = tempfile.TemporaryFile()
        try:
            copy_into(copy, unpacked)
        except Exception as error:
            if not _is_damage(error):
                copy.close()
                raise
            # Cut between two members, it would look like the end.
            copy.write(b"damaged".ljust(tarfile.BLOCKSIZE))
    copy.seek(0)
    return copy


def first_member(path: str, retry: RetryPolicy = RETRY) -> tarfile.TarInfo | None:
    """The first member, without unpacking the rest; None if there is none.

    Raises:
      OSError, tarfile.TarError: it is no tar.
    """
    file = open_seekable(path, retry)
    if (kind := _kind(file)) is None:
        with file:
            return next(members(file), None)
    with _unpacked(file, kind) as unpacked:
        return tarfile.TarFile(fileobj=unpacked).next()


@contextmanager
def _unpacked(file: IO[bytes], kind: str) -> Iterator[IO[bytes]]:
    with file, importlib.import_module(kind).open(file) as unpacked:
        yield unpacked


def _kind(file: IO[bytes]) -> str | None:
    """The module that unpacks a file, None for one that is not compressed."""
    head = file.read(6)
    file.seek(0)
    if other := [name for magic, name in _OTHERS.items() if head.startswith(magic)]:
        file.close()
        raise OSError(f"it is {other[0]}: unpack it first")
    return next((kind for magic, kind in _PACKED.items() if head.startswith(magic)), None)


def _is_damage(error: Exception) -> bool:
    """Whether it is about the compressed data. Errors of the disk carry a number, which those of the modules do not."""
    if isinstance(error, OSError):
        return error.errno is None
    return isinstance(error, EOFError) or type(error).__module__ in ("zlib", "_lzma", "lzma")
