"""Files by path or address: this machine's directly, all others through fsspec."""

from __future__ import annotations

import os
import posixpath
import re
from typing import IO, Any

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources.retry import RETRY, RetryPolicy, retried
from jaxphoton.files import open_regular

# Of one image file; more is no picture.
MAX_FILE_BYTES = 1 << 30


def is_remote(path: str) -> bool:
    """Whether `path` is an address like `s3://bucket/folder`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def is_web(path: str) -> bool:
    """Whether `path` is an address of a web server."""
    return path.startswith(("http://", "https://"))


def suffix_of(path: str) -> str:
    """The last suffix in lower case, without the query of a web address."""
    if is_web(path):
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


def join(root: str, name: str) -> str:
    """A path below `root`."""
    return f"{root.rstrip('/')}/{name}"


def filesystem(url: str, retry: RetryPolicy = RETRY) -> tuple[Any, str]:
    """The fsspec filesystem of an address, and its path there. That of the web gives up where nothing arrives for the
    time that `retry` allows.

    Raises:
      SourceError: the scheme is unknown, or its package is not installed.
    """
    import fsspec

    try:
        if not is_web(url):
            return fsspec.core.url_to_fs(url)
        import aiohttp

        # In all there is none: a tar may take hours.
        limits = aiohttp.ClientTimeout(total=None, connect=retry.timeout_s, sock_read=retry.timeout_s)
        return fsspec.core.url_to_fs(url, client_kwargs={"timeout": limits})
    except ImportError as error:
        more = "pip install 'jaxphoton[remote]'"
        raise SourceError(f"{url}: reading such addresses needs another package: {more} ({error})") from error
    except ValueError as error:
        raise SourceError(f"{url}: {error}") from error


def open_binary(path: str, retry: RetryPolicy = RETRY) -> IO[bytes]:
    """Opens a file for reading, one on a server without ranges as a stream that cannot seek."""
    if not is_remote(path):
        return open_regular(path)
    system, inner = filesystem(path, retry)
    return retried(lambda: system.open(inner, "rb"), retry)


def read_file(path: str, retry: RetryPolicy = RETRY) -> bytes:
    """The whole of an image file.

    Raises:
      OSError: it cannot be read, or is larger than MAX_FILE_BYTES.
    """
    if not is_remote(path):
        with open_regular(path) as file:
            return bounded(file.read(MAX_FILE_BYTES + 1))
    from jaxphoton.batch.sources.remote import fetch

    return retried(lambda: fetch(path, retry), retry)


def bounded(data: bytes) -> bytes:
    """`data`, if it is not longer than an image file may be."""
    if len(data) > MAX_FILE_BYTES:
        raise OSError(f"larger than {MAX_FILE_BYTES >> 20} MiB, which no image is")
    return data


def exists(path: str, retry: RetryPolicy = RETRY) -> bool:
    """Whether there is a file or folder.

    Raises:
      SourceError: the storage cannot be asked.
    """
    if not is_remote(path):
        return os.path.exists(path)
    system, inner = filesystem(path, retry)
    # Without `strict` the web's says of a server that is down that there is no such file.
    options = {"strict": True} if is_web(path) else {}
    try:
        return retried(lambda: system.exists(inner, **options), retry)
    except FileNotFoundError:
        return False
    except Exception as error:
        raise SourceError(f"{path}: cannot be reached: {error}") from error
