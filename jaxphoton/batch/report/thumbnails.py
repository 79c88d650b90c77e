"""Small pictures of the images on the page."""

from __future__ import annotations

import contextlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from jaxphoton.batch.report.collect import ReportOptions
from jaxphoton.batch.sources import Source
from jaxphoton.batch.sources.base import EndOfSelection
from jaxphoton.image.decode import ImageError, decode

_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A WebP file, empty where there is no picture; then `fault` says why."""

    webp: bytes = b""
    width: int = 0
    height: int = 0
    fault: str = ""


def thumbnail(read: Callable[[], str | bytes], options: ReportOptions) -> Thumbnail:
    """Of the image that `read` returns as a path or as the bytes of its file; cut short, what there is of it."""
    try:
        image = decode(read(), allow_truncated=True).picture.copy()
    except ImageError as error:
        return Thumbnail(fault=error.fault)
    image.thumbnail((options.thumbnail, options.thumbnail), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=options.quality)
    return Thumbnail(buffer.getvalue(), *image.size)


def thumbnails(
    paths: Mapping[str, str], source: Source | None, options: ReportOptions
) -> Iterator[tuple[str, Thumbnail]]:
    """(key, thumbnail) of each image once, in any order; a few at a time are held.

    Args:
      paths: key -> `Record.path`. What is no file on this machine is looked for in the source.
      source: what the run has read; None leaves those images without a picture.
    """
    waiting: deque[tuple[str, Future[Thumbnail]]] = deque()
    with ThreadPoolExecutor(_THREADS, "thumbnail") as pool:
        for key, read in _readers(paths, source):
            waiting.append((key, pool.submit(thumbnail, read, options)))
            if len(waiting) > 2 * _THREADS:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _readers(paths: Mapping[str, str], source: Source | None) -> Iterator[tuple[str, Callable[[], str | bytes]]]:
    elsewhere = {}
    for key, path in paths.items():
        if os.path.isfile(path):
            yield key, lambda path=path: path
        else:
            elsewhere[key] = path

    def wanted(key: str) -> bool:
        if not elsewhere:
            raise EndOfSelection
        return key in elsewhere

    if source is not None and elsewhere:
        with contextlib.suppress(EndOfSelection):
            for item in source.items(wanted):
                if elsewhere.pop(item.key, None) is not None:
                    yield item.key, item.image
    for key, path in elsewhere.items():
        yield key, lambda key=key, path=path: _absent(key, path)


def _absent(key: str, path: str) -> str:
    if "://" in path or "#" in path:
        raise ImageError(key, "not-found", "not a file on this machine, and not in a source given with the journal")
    raise ImageError(key, "not-found", "no such file" if path else "the journal does not say where it is")
