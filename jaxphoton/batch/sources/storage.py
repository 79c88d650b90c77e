"""Files by path or address: this machine's directly, all others through fsspec."""

from __future__ import annotations

import io
import os
import posixpath
import re
from collections.abc import Iterator
from typing import IO, Any

from jaxphoton.batch.errors import SourceError


def is_remote(path: str) -> bool:
    """Whether `path` is an address like `s3://bucket/folder`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def suffix_of(path: str) -> str:
    """The last suffix in lower case, without the query of a web address."""
    if path.startswith(("http://", "https://")):
        path = re.split(r"[?#]", path, maxsplit=1)[0]
    return posixpath.splitext(path.replace(os.sep, "/"))[1].lower()


def absolute(path: str, root: str = "") -> str:
    """An address as it is, a path made absolute, from `root` if it is relative."""
    if is_remote(path):
        return path
    if is_remote(root):
        return f"{root.rstrip('/')}/{path}"
    # Not abspath: it would take ".." back out of a link to elsewhere.
    return os.path.join(os.path.abspath(root or "."), "/".join(part for part in path.split("/") if part != "."))


def parent(path: str) -> str:
    """The folder or address that `path` is in."""
    return path.rpartition("/")[0] if is_remote(path) else os.path.dirname(os.path.abspath(path))


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of an address, and its path there.

    Raises:
      SourceError: the scheme is unknown, or its package is not installed.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SourceError(f"{url}: {error}") from error


def open_binary(path: str) -> IO[bytes]:
    """Opens a file for reading, one on a server without ranges as a stream that cannot seek."""
    if not is_remote(path):
        return open(path, "rb")
    system, inner = filesystem(path)
    return system.open(inner, "rb")


def read_file(path: str) -> bytes:
    """The whole of a file."""
    if not is_remote(path):
        with open(path, "rb") as file:
            return file.read()
    system, inner = filesystem(path)
    return system.cat_file(inner)


def read_range(path: str, offset: int, size: int) -> bytes:
    """`size` bytes of a local file from `offset` on, fewer where it ends."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def exists(path: str) -> bool:
    """Whether there is a file or folder.

    Raises:
      SourceError: the storage cannot be asked.
    """
    if not is_remote(path):
        return os.path.exists(path)
    system, inner = filesystem(path)
    try:
        return system.exists(inner)
    except Exception as error:
        raise SourceError(f"{path}: cannot be reached: {error}") from error


def list_folder(path: str) -> list[str]:
    """Sorted names, those of subfolders with a "/" at the end; hidden ones are left out.

    With that "/", walking in this order gives whole paths in sorted order. Links to folders are not followed.

    Raises:
      OSError: the folder cannot be read.
    """
    if is_remote(path):
        system, inner = filesystem(path)
        try:
            infos = system.ls(inner, detail=True)
        except OSError:
            raise
        except Exception as error:  # each storage library has its own
            raise OSError(None, str(error)) from error
        names = (_name(info) for info in infos if info["name"].rstrip("/") != inner.rstrip("/"))
    else:
        with os.scandir(path) as entries:
            names = [_local_name(entry) for entry in entries]
    return sorted(name for name in names if name and not name.startswith("."))


def walk(root: str, depth: int | None = None) -> Iterator[tuple[str, OSError | None]]:
    """The paths of all files below `root` of at most `depth` parts, relative to it and in sorted order; a folder that
    cannot be read is its path with "/" at the end and the error."""
    stack: list[Iterator[str]] = [iter([""])]
    while stack:
        name = next(stack[-1], None)
        if name is None:
            stack.pop()
        elif name and not name.endswith("/"):
            yield name, None
        elif depth is None or name.count("/") < depth:
            try:
                stack.append(_prefixed(name, list_folder(join(root, name.rstrip("/")) if name else root)))
            except OSError as error:
                yield name, error


def join(root: str, name: str) -> str:
    """A path below `root`."""
    return f"{root.rstrip('/')}/{name}"


def seekable(file: IO[bytes]) -> IO[bytes]:
    """`file`, or a copy on disk of one that only streams."""
    if file.seekable():
        return file
    import shutil
    import tempfile

    copy = tempfile.TemporaryFile()
    with file:
        shutil.copyfileobj(file, copy, io.DEFAULT_BUFFER_SIZE * 64)
    copy.seek(0)
    return copy


def _prefixed(prefix: str, names: list[str]) -> Iterator[str]:
    return (prefix + name for name in names)


def _local_name(entry: os.DirEntry[str]) -> str | None:
    if entry.is_dir(follow_symlinks=False):
        return entry.name + "/"
    # A pipe would block whoever opens it; a link to nothing is a failure to report.
    return entry.name if entry.is_file() or (entry.is_symlink() and not entry.is_dir()) else None


def _name(info: dict[str, Any]) -> str:
    return posixpath.basename(info["name"].rstrip("/")) + ("/" if info["type"] == "directory" else "")
