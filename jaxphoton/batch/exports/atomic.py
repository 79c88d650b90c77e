"""Files that are either the old or the new ones, never halves; and never those that a run has to keep."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from jaxphoton.batch.journal.keymap import digest

_LONG = 64  # bytes of a name from which on its draft has a shorter one
_BLOCK = 4096


class Kept:
    """Files that no output may replace, by whatever name: also through links, and those that are yet to be made."""

    def __init__(self, paths: Iterable[str | os.PathLike] = ()):
        self._files: set[tuple[int, int]] = set()
        self._paths: dict[str, set[str]] = {}  # by the last part
        for path in paths:
            with suppress(OSError):
                status = os.stat(path)
                self._files.add((status.st_dev, status.st_ino))
            whole = os.path.realpath(path)
            self._paths.setdefault(os.path.basename(whole), set()).add(whole)

    def __contains__(self, path: str | os.PathLike) -> bool:
        if not self._paths:
            return False
        try:
            status = os.stat(path)
        except OSError:
            # The names first: resolving links asks the system about every folder of the path.
            same = self._paths.get(os.path.basename(path))
            return same is not None and os.path.realpath(path) in same
        return (status.st_dev, status.st_ino) in self._files


_NOTHING = Kept()
_kept: ContextVar[Kept] = ContextVar("kept", default=_NOTHING)


@contextmanager
def keeping(paths: Iterable[str | os.PathLike]) -> Iterator[None]:
    """Inside, `replacing` refuses these files: all outputs are made by it, so that none can forget to look."""
    token = _kept.set(Kept(paths))
    try:
        yield
    finally:
        _kept.reset(token)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file beside `path` for writing, which takes its place at the end, or goes if anything is raised.

    Its name is hidden and always the same: what a killed export leaves is overwritten by the next, and no folder
    source takes it for an image.

    Raises:
      OSError: it cannot be written, or is one that `keeping` protects.
    """
    if path in _kept.get():
        raise FileExistsError(errno.EEXIST, "it is an input or another output of the run", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own would be too long where that of the file is as long as the file system allows.
    name = path.name if len(os.fsencode(path.name)) <= _LONG else f"{digest(path.name):016x}"
    draft = path.with_name(f".{name}.tmp")
    lock = _locked(draft)
    try:
        # Closed before it is renamed: some file systems say only then that the disk was full.
        with os.fdopen(os.dup(lock), "wb") as file:
            yield file
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    finally:
        os.close(lock)


def write_text(path: Path, text: str) -> None:
    """One line end is added."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")


def probe(folder: Path) -> None:
    """Finds out whether files can be made in a folder, or in the first one above it that exists.

    Raises:
      OSError: they cannot: no right to, a read-only or a full disk.
    """
    while not os.path.isdir(folder):
        with suppress(FileNotFoundError):
            os.stat(folder)  # a name too long, links in a circle
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder, prefix=".jaxphoton-") as file:
        file.write(bytes(_BLOCK))  # an empty file would fit on a full disk
        file.flush()
        os.fsync(file.fileno())


def _locked(draft: Path) -> int:
    """A draft, open and empty. Another process that writes it is waited for: by then its draft is the file."""
    while True:
        lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(draft)):
                    os.ftruncate(lock, 0)
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
