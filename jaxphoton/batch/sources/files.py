"""Images as files: one, all below a folder, or those that match a glob; local or behind fsspec."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources.base import Skipped, Source, SourceOptions, Wanted, every
from jaxphoton.batch.sources.folders import Walk, images_in
from jaxphoton.batch.sources.globs import EVERYTHING, Excluded, split_glob
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES, Item, broken
from jaxphoton.batch.sources.retry import RETRY, RetryPolicy
from jaxphoton.batch.sources.storage import absolute, exists, is_remote, join, read_file

DEFAULT = SourceOptions()


def file_item(
    key: str, path: str, columns: dict | None = None, retry: RetryPolicy = RETRY, listed: bool = True
) -> Item:
    """The item of a file or address.

    Args:
      listed: it was not found in a folder, but somebody has named it.
    """
    load = functools.partial(read_file, path, retry)
    local = not is_remote(path)
    return Item(key, path, load, local=local, listed=local and listed, columns=columns or {})


class OneFile(Source):
    """A single image; its key is the path as given."""

    plain = True

    def __init__(self, path: str, options: SourceOptions = DEFAULT):
        super().__init__()
        if not is_remote(path) and not exists(path):
            raise SourceError(f"{path} does not exist")
        self.path, self._options = path, options

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        skipped = Skipped()
        if self._options.kept(wanted, skipped)(self.path):
            yield file_item(self.path, absolute(self.path), retry=self._options.retry)
        self.skipped = skipped

    def count(self) -> int:
        return int(not Excluded(self._options.exclude).key(self.path))


class Files(Source):
    """The images below a folder, or those of them that match a glob; keys are paths relative to the folder (of a glob:
    the one before its first pattern part). See `Walk` for what is left out.

    Memory: as `Walk`.

    Args:
      spec: the folder, or with `pattern` the glob.

    Raises:
      SourceError: there is no such folder, or no image in it.
    """

    plain = True

    def __init__(self, spec: str, options: SourceOptions = DEFAULT, pattern: bool = False):
        super().__init__()
        self._spec, self._typed, self._glob, self._options = spec, spec, EVERYTHING, options
        if pattern:
            self._typed, self._glob = split_glob(spec)
        self._root = self.place = absolute(self._typed).rstrip("/") or "/"
        if next(self._names(skipped := Skipped()), None) is None:
            what = "matches" if pattern else "found"
            raise SourceError("; ".join([f"{spec}: no image {what}", *skipped.lines()]))

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        skipped = Skipped()
        for key, error in self._names(skipped):
            if not wanted(key):
                continue
            path = join(self._root, key)
            if error is None:
                yield file_item(key, path, retry=self._options.retry, listed=False)
            else:
                yield broken(key, path, "unreadable", f"the folder cannot be read: {error.strerror}")
        self.skipped = skipped

    def count(self) -> int:
        return sum(1 for _ in self._names(Skipped()))

    def _names(self, skipped: Skipped) -> Iterator[tuple[str, OSError | None]]:
        typed = "" if self._typed == "." else self._typed.rstrip("/")
        walk = Walk(self._root, self._glob, Excluded(self._options.exclude), typed, skipped)
        for name, error in images_in(walk.files(), IMAGE_SUFFIXES, skipped):
            if error is not None and not name:
                raise SourceError(f"{self._spec}: cannot be read: {error.strerror or error}")
            yield name, error
