"""Globs over the parts of a path, matched one part at a time, so that a walk knows which folders can still match."""

from __future__ import annotations

import functools
import glob
import os
import re
from fnmatch import translate

from jaxphoton.batch.errors import SourceError

State = frozenset[int]


class Glob:
    """A pattern such as `*/raw/**/[ab]?.png`; `**` stands for any number of parts.

    A state is the set of places in the pattern that the parts read so far may have led to; an empty one can lead to
    no match any more. There are as many states as there are sets of parts, whatever the paths are.

    Raises:
      SourceError: "**" is not a part of its own.
    """

    def __init__(self, pattern: str):
        self._parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if any("**" in part and part != "**" for part in self._parts):
            raise SourceError(f"{pattern}: ** stands for whole folders, as in a/**/b, and not for a part of a name")
        self._matchers = [None if part == "**" else re.compile(translate(part)) for part in self._parts]
        self.start = self._closed(0)

    def step(self, state: State, name: str) -> State:
        """After one more part."""
        return frozenset().union(*(self._after(place, name) for place in state))

    def matches(self, path: str) -> bool:
        """Whether it is matched as a whole."""
        return self.ended(functools.reduce(self.step, path.split("/"), self.start))

    def ended(self, state: State) -> bool:
        """Whether what was read is matched."""
        return len(self._parts) in state

    def names(self, state: State, name: str) -> bool:
        """Whether the next part of the pattern is about this name in particular: spelled out, or beginning with a dot
        as it does. Such a pattern means folders that are left out otherwise."""
        due = [place for place in state if place < len(self._parts)]
        return any(
            self._parts[place] == name or (self._parts[place][0] == name[0] == "." and self._after(place, name))
            for place in due
        )

    def _after(self, place: int, name: str) -> State:
        if place == len(self._parts):
            return frozenset()
        if (matcher := self._matchers[place]) is None:
            return self._closed(place)
        return self._closed(place + 1) if matcher.match(name) else frozenset()

    def _closed(self, place: int) -> State:
        """A place, and those behind it that an empty `**` leads to."""
        places = {place}
        while place < len(self._parts) and self._parts[place] == "**":
            place += 1
            places.add(place)
        return frozenset(places)


EVERYTHING = Glob("**")


class Excluded:
    """What `--exclude` names: a pattern without "/" any file or folder of that name, one with "/" a path from the
    input on, or as it was typed; what is below an excluded folder is excluded too."""

    def __init__(self, patterns: tuple[str, ...]):
        patterns = tuple(pattern.rstrip("/") for pattern in patterns)
        self._names = [re.compile(translate(pattern)) for pattern in patterns if "/" not in pattern]
        self._paths = [Glob(pattern) for pattern in patterns if "/" in pattern]

    def __bool__(self) -> bool:
        return bool(self._names or self._paths)

    def entry(self, path: str, root: str = "") -> bool:
        """Whether an entry of a folder that is not excluded is; `root` stands before its path as it was typed."""
        name = path.rpartition("/")[2]
        if any(pattern.match(name) for pattern in self._names):
            return True
        typed = f"{root}/{path}" if root else path
        return any(pattern.matches(path) or pattern.matches(typed.removeprefix("./")) for pattern in self._paths)

    def key(self, key: str) -> bool:
        """Whether a key is, or a folder that it is in."""
        if not self:
            return False
        parts = key.split("/")
        return any(self.entry("/".join(parts[:number])) for number in range(1, len(parts) + 1))


def is_glob(path: str) -> bool:
    """Whether `path` has glob characters; a "?" in a web address is its query."""
    if path.startswith(("http://", "https://")):
        return False
    return glob.has_magic(path)


def split_glob(pattern: str) -> tuple[str, Glob]:
    """The folder before the first pattern part, and the rest.

    Raises:
      SourceError: as `Glob`.
    """
    parts = pattern.replace(os.sep, "/").split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    root = "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
    return root, Glob("/".join(parts[first:]))
