"""What lies below a folder: in sorted order, through links, each real folder once."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jaxphoton.batch.journal.keymap import KeyMap
from jaxphoton.batch.sources.base import Skipped
from jaxphoton.batch.sources.globs import EVERYTHING, Excluded, Glob, State
from jaxphoton.batch.sources.storage import filesystem, is_remote, join, suffix_of

# Where network storages and systems put thumbnails, copies and deleted files, in lower case.
LEFT_OUT = frozenset(
    ["@eadir", "@__thumb", "__macosx", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "lost+found"]
    + ["system volume information"]
)
_NO_EXCLUDED = Excluded(())


class Entry(NamedTuple):
    """Of a folder: its name, with "/" at the end if it is one or a link to one; and whether it is neither folder nor
    file, which would block or never end whoever reads it. A link to nothing is a file, and a failure to report."""

    name: str
    linked: bool = False
    special: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """One that is to be searched.

    Attributes:
      name: its path below the root, with "/" at the end; "" for the root.
      state: of the pattern.
      real: where it lies when no part of its path is a link.
    """

    name: str
    state: State
    real: str


class Walk:
    """The files below a folder that match a pattern.

    Hidden files and the folders of LEFT_OUT are left out, unless a part of the pattern means them. Links to folders
    are followed; a folder that several paths lead to is searched once, under its own path if that matches too.

    Memory: the names in one folder (and its parents) at a time, and 16 bytes for each folder behind a link.

    Args:
      typed: the root as it was given, for patterns of `excluded`.
      skipped: takes the counts of what is left out.
    """

    def __init__(
        self,
        root: str,
        glob: Glob = EVERYTHING,
        excluded: Excluded = _NO_EXCLUDED,
        typed: str = "",
        skipped: Skipped | None = None,
    ):
        self._root, self._glob, self._excluded, self._typed = root, glob, excluded, typed
        self._skipped = Skipped() if skipped is None else skipped
        self._real_root = root if is_remote(root) else os.path.realpath(root)
        self._linked = KeyMap("B")

    def files(self) -> Iterator[tuple[str, OSError | None]]:
        """Paths relative to the root, in sorted order; a folder that cannot be read is its path with "/" at the end
        and the error."""
        stack: list[Iterator[tuple[str, Folder | None]]] = [iter([("", Folder("", self._glob.start, self._real_root))])]
        while stack:
            name, folder = next(stack[-1], (None, None))
            if name is None:
                stack.pop()
            elif folder is None:
                yield name, None
            else:
                try:
                    stack.append(self._entries(folder, list_folder(self._at(name))))
                except OSError as error:
                    yield name, error

    def _at(self, path: str) -> str:
        return join(self._root, path.rstrip("/")) if path else self._root

    def _entries(self, folder: Folder, listed: list[Entry]) -> Iterator[tuple[str, Folder | None]]:
        """The files and folders of one that are wanted."""
        for name, linked, special in listed:
            path, short = folder.name + name, name.rstrip("/")
            state = self._glob.step(folder.state, short)
            if not state or (not name.endswith("/") and not self._glob.ended(state)):
                continue
            if (why := self._left_out(path, folder.state)) is not None:
                counts = self._skipped.folders if name.endswith("/") else self._skipped.files
                counts[why] += 1
            elif special:
                self._skipped.files["pipes and devices"] += 1
            elif not name.endswith("/"):
                yield path, None
            elif (inner := self._folder(folder, name, state, linked)) is not None:
                yield path, inner
            else:
                self._skipped.folders["linked and searched elsewhere"] += 1

    def _left_out(self, path: str, state: State) -> str | None:
        """Why an entry is not looked at, None if it is."""
        bare = path.rstrip("/")
        name = bare.rpartition("/")[2]
        if self._excluded and self._excluded.entry(bare, self._typed):
            return "excluded"
        if self._glob.names(state, name):
            return None
        if name.startswith("."):
            return "hidden"
        return name if path.endswith("/") and name.lower() in LEFT_OUT else None

    def _folder(self, parent: Folder, name: str, state: State, linked: bool) -> Folder | None:
        """A subfolder, None if it is searched under another path."""
        path = parent.name + name
        real = os.path.realpath(self._at(path)) if linked else join(parent.real, name.rstrip("/"))
        below = _below(self._real_root, real)
        if below != path:
            if below is not None and self._state_of(below) == state:
                return None
            identity = f"{sorted(state)} {real}"
            if identity in self._linked:
                return None
            self._linked[identity] = 1
        return Folder(path, state, real)

    def _state_of(self, below: str) -> State | None:
        """With which a folder below the root is searched under its own path, None if it is not."""
        state, path = self._glob.start, ""
        for name in filter(None, below.split("/")):
            path += name + "/"
            if self._left_out(path, state) is not None:
                return None
            state = self._glob.step(state, name)
        return state or None


def list_folder(path: str) -> list[Entry]:
    """What is in it, sorted. Thanks to the "/" of folders, walking in this order gives whole paths in sorted order.

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
        found = [_name(info) for info in infos if info["name"].rstrip("/") != inner.rstrip("/")]
        return sorted(Entry(name) for name in found if name.strip("/"))
    with os.scandir(path) as entries:
        return sorted(map(_local, entries))


def images_in(
    names: Iterator[tuple[str, OSError | None]], suffixes: frozenset[str], skipped: Skipped
) -> Iterator[tuple[str, OSError | None]]:
    """Those of `names` with one of the suffixes, and the errors; the others are counted."""
    for name, error in names:
        if error is not None or suffix_of(name) in suffixes:
            yield name, error
        else:
            skipped.files[suffix_of(name) or "without a suffix"] += 1


def _local(entry: os.DirEntry[str]) -> Entry:
    try:
        if entry.is_dir():
            return Entry(entry.name + "/", entry.is_symlink())
        return Entry(entry.name, special=not entry.is_file() and not entry.is_symlink())
    except OSError:  # a link to itself
        return Entry(entry.name)


def _name(info: dict) -> str:
    return posixpath.basename(info["name"].rstrip("/")) + ("/" if info["type"] == "directory" else "")


def _below(root: str, path: str) -> str | None:
    """`path` relative to `root` with "/" at the end, "" for the root, None for elsewhere."""
    root, path = root.rstrip("/") + "/", path.rstrip("/") + "/"
    return path[len(root) :] if path.startswith(root) else None
