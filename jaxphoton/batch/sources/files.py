"""Images as files: one, all below a folder, or those that match a glob; local or behind fsspec."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources.base import Source, Wanted, every
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES, Item, broken
from jaxphoton.batch.sources.patterns import split_glob
from jaxphoton.batch.sources.storage import absolute, exists, is_remote, join, read_file, suffix_of, walk


def file_item(key: str, path: str, columns: dict | None = None) -> Item:
    """The item of a file or address."""
    return Item(key, path, functools.partial(read_file, path), local=not is_remote(path), columns=columns or {})


class OneFile(Source):
    """A single image; its key is the path as given."""

    def __init__(self, path: str):
        if not is_remote(path) and not exists(path):
            raise SourceError(f"{path} does not exist")
        self.path = path

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        if wanted(self.path):
            yield file_item(self.path, absolute(self.path))

    def count(self) -> int:
        return 1


class Files(Source):
    """The images below a folder, or those of them that match a glob; keys are paths relative to the folder (of a glob:
    the one before its first pattern part).

    Memory: the names in one folder (and its parents) at a time.

    Args:
      spec: the folder, or with `pattern` the glob.

    Raises:
      SourceError: there is no such folder, or no image in it.
    """

    def __init__(self, spec: str, pattern: bool = False):
        self._spec, self._matcher, self._depth = spec, None, None
        if pattern:
            spec, self._matcher, self._depth = split_glob(spec)
        self._root = absolute(spec).rstrip("/")
        if next(self._names(), None) is None:
            what = "matches" if self._matcher else "found"
            raise SourceError(f"{self._spec}: no image {what} ({', '.join(sorted(IMAGE_SUFFIXES))})")

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        for key, error in self._names():
            if not wanted(key):
                continue
            path = join(self._root, key)
            if error is None:
                yield file_item(key, path)
            else:
                yield broken(key, path, "unreadable", f"the folder cannot be read: {error.strerror}")

    def count(self) -> int:
        return sum(1 for _ in self._names())

    def _names(self) -> Iterator[tuple[str, OSError | None]]:
        for name, error in walk(self._root or "/", self._depth):
            if error is not None:
                if not name:
                    raise SourceError(f"{self._spec}: cannot be read: {error.strerror or error}")
                yield name, error
            elif suffix_of(name) in IMAGE_SUFFIXES and (self._matcher is None or self._matcher.match(name)):
                yield name, None
