"""Files with many images in each: what they are called (braces and globs stand for several), and sources of them."""

from __future__ import annotations

import copy
import glob
import os
import posixpath
import re
from collections.abc import Callable, Iterator

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources.base import Skipped, Source, SourceOptions
from jaxphoton.batch.sources.globs import is_glob
from jaxphoton.batch.sources.retry import RETRY, RetryPolicy
from jaxphoton.batch.sources.storage import absolute, exists, filesystem, is_remote
from jaxphoton.batch.sources.unpacking import TAR_SUFFIXES

_BRACES = re.compile(r"\{([^{}]*)\}")


def braces(pattern: str) -> Iterator[str]:
    """`a-{00..02}` -> a-00, a-01, a-02; `{a,b}` -> a, b; several in one pattern in every combination.

    Raises:
      SourceError: braces that hold neither a range nor a list.
    """
    found = _BRACES.search(pattern)
    if not found:
        yield pattern
        return
    for middle in _alternatives(found[1], pattern):
        yield from braces(pattern[: found.start()] + middle + pattern[found.end() :])


def containers(spec: str, retry: RetryPolicy = RETRY) -> list[str]:
    """The files of a pattern with braces or globs, or the one named.

    Raises:
      SourceError: one of them does not exist (of remote ones, only the first is looked for), or none matches.
    """
    if not is_remote(spec) and os.path.exists(spec):
        return [spec]
    found = [path for pattern in braces(spec) for path in (_matching(pattern) if is_glob(pattern) else [pattern])]
    if not found:
        raise SourceError(f"{spec}: nothing matches")
    missing = [path for path in (found[:1] if is_remote(spec) else found) if not exists(path, retry)]
    if missing:
        of = f" ({len(missing)} of {len(found)} are missing)" if len(found) > 1 else ""
        raise SourceError(f"{missing[0]} does not exist{of}")
    return found


def named(paths: list[str]) -> list[tuple[str, str]]:
    """(name, absolute path) of each: names are paths below the folder that all have in common, without the suffix."""
    full = [absolute(path).replace(os.sep, "/") for path in paths]
    short = below_common(full)
    stems = [stem_of(name) for name in short]
    return list(zip(stems if len(set(stems)) == len(stems) else short, full, strict=True))


def below_common(places: list[str]) -> list[str]:
    """What tells places apart: each below the innermost folder that all are in."""
    rooted = [_rooted(place) for place in places]
    common = _common(rooted)
    return [place.removeprefix(common).lstrip("/") for place in rooted]


def common_folder(paths: list[str]) -> str:
    """The innermost folder that all of these files are in, as `_rooted`."""
    return _common([_rooted(absolute(path)) for path in paths])


def stem_of(path: str) -> str:
    """Without the suffix, "a/b.tar" and "a/b.tar.gz" both "a/b"."""
    suffix = max((each for each in TAR_SUFFIXES if path.lower().endswith(each)), key=len, default="")
    return path[: -len(suffix)] if suffix else posixpath.splitext(path)[0]


def _rooted(place: str) -> str:
    """An absolute path without "." and "..", of an address one that begins with its scheme."""
    if is_remote(place):
        return "/" + place.replace("://", "/", 1).rstrip("/")
    return posixpath.normpath("/" + place.lstrip("/"))


def _common(rooted: list[str]) -> str:
    common = posixpath.dirname(rooted[0])
    while not all(place.startswith(common.rstrip("/") + "/") for place in rooted):
        common = posixpath.dirname(common)
    return common


def _alternatives(inside: str, pattern: str) -> list[str]:
    span = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if span:
        first, last, width = int(span[1]), int(span[2]), len(span[1]) if span[1].startswith("0") else 1
        if first > last:
            raise SourceError(f"{pattern}: the range {{{inside}}} is empty")
        return [f"{number:0{width}}" for number in range(first, last + 1)]
    if "," in inside:
        return inside.split(",")
    raise SourceError(f"{pattern}: {{{inside}}} is neither a range like {{000..099}} nor a list like {{a,b}}")


def _matching(pattern: str) -> list[str]:
    if not is_remote(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    system, inner = filesystem(pattern)
    try:
        return sorted(system.unstrip_protocol(path) for path in system.glob(inner))
    except Exception as error:
        raise SourceError(f"{pattern}: cannot be listed: {error}") from error


class Containers(Source):
    """One or more files, each with images.

    Attributes:
      parts: (name, absolute path) of each file; the name begins the keys of its images.
    """

    def __init__(self, paths: list[str], options: SourceOptions):
        super().__init__()
        self.parts, self._options = named(paths), options
        self.place = common_folder(paths)
        self._shards: dict[tuple[int, int], Source] = {}

    def identify(self, note: Callable[[str, str], None]) -> None:
        if not any(is_remote(path) for _, path in self.parts):
            super().identify(note)
            return
        # Its keys would be a download of everything. Those of two containers differ where the names of these do.
        for name, path in self.parts:
            note(f"{name}/", path)

    def shard(self, index: int, count: int) -> Source | None:
        if len(self.parts) < count:
            return None
        if (index, count) not in self._shards:
            part = copy.copy(self)
            part.parts, part.skipped = self.parts[index::count], Skipped()
            self._shards[index, count] = part
        return self._shards[index, count]
