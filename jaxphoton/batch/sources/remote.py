"""Bytes from other machines, in bounded time and memory."""

from __future__ import annotations

import errno
import io
import shutil
import tempfile
from typing import IO, Any

from jaxphoton.batch.sources.retry import RetryPolicy, retried
from jaxphoton.batch.sources.storage import MAX_FILE_BYTES, bounded, filesystem, is_web, open_binary

_CHUNK = 1 << 18
# Left free on the disk that streams are copied to.
_SPARE_BYTES = 1 << 30
# Others write there too: after so many, it is looked at again.
_LOOK_BYTES = 1 << 28


def fetch(url: str, retry: RetryPolicy) -> bytes:
    """An image file, in one try.

    Raises:
      TimeoutError: it took longer than `retry` allows.
      Exception: whatever the storage's library throws.
    """
    from fsspec.asyn import AsyncFileSystem, sync

    system, inner = filesystem(url, retry)
    wait: Any = sync
    if is_web(url):
        return wait(system.loop, _get, system, inner, retry.timeout_s)
    if isinstance(system, AsyncFileSystem):
        return bounded(wait(system.loop, system._cat_file, inner, timeout=retry.timeout_s))
    return bounded(system.cat_file(inner))  # those have limits of their own, if any


async def _get(system: Any, url: str, seconds: float) -> bytes:
    """What fsspec's `cat_file` does, but a server that sends without end, or a byte now and then, is left."""
    import aiohttp

    session = await system.set_session()
    data = bytearray()
    try:
        # In all: a limit between two bytes would let a slow server hold a thread for ever.
        async with session.get(system.encode_url(url), timeout=aiohttp.ClientTimeout(total=seconds)) as reply:
            if reply.status in (404, 410):
                raise FileNotFoundError(url)
            reply.raise_for_status()
            async for chunk in reply.content.iter_chunked(_CHUNK):
                data += chunk
                if len(data) > MAX_FILE_BYTES:
                    break
    except aiohttp.TooManyRedirects as error:
        raise OSError("too many redirects") from error
    return bounded(bytes(data))


def open_seekable(path: str, retry: RetryPolicy) -> IO[bytes]:
    """Opens a file that can seek: one on a server without ranges as a copy on disk."""
    file = open_binary(path, retry)
    if not file.seekable():
        file.close()
        return retried(lambda: _copied(path, retry), retry)
    return io.BufferedReader(_Ranges(file, retry), _CHUNK) if is_web(path) else file


def _copied(path: str, retry: RetryPolicy) -> IO[bytes]:
    """A copy on disk of what only streams, at its start."""
    copy = tempfile.TemporaryFile()
    try:
        with open_binary(path, retry) as file:
            copy_into(copy, file)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


def copy_into(copy: IO[bytes], file: IO[bytes]) -> None:
    """Copies the rest of a file to one on the disk of temporary files.

    Raises:
      OSError: the disk would be filled.
    """
    room = 0
    while chunk := file.read(_CHUNK):
        if room < len(chunk):
            room = shutil.disk_usage(tempfile.gettempdir()).free - _SPARE_BYTES
            if room < len(chunk):
                raise OSError(errno.ENOSPC, f"no room for a copy of it in {tempfile.gettempdir()}")
            room = min(room, _LOOK_BYTES)
        copy.write(chunk)
        room -= len(chunk)


class _Ranges(io.RawIOBase):
    """A file on a web server, whose ranges are asked for again where a connection breaks."""

    def __init__(self, file: IO[bytes], retry: RetryPolicy):
        self._file, self._retry = file, retry

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        place = self._file.tell()

        def read() -> bytes:
            self._file.seek(place)
            return self._file.read(len(buffer))

        data = retried(read, self._retry)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
