"""A folder of adapters, of which a client may name any and nothing else of the disk; and what is a name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jaxphoton.messages import quoted

# Files that are adapters by themselves; their names need not be told.
SUFFIXES = (".safetensors", ".pt")
LONGEST = 200  # characters of a name


def check_name(name: Any) -> str:
    """
    Raises:
      TypeError: the name of an adapter that is no text.
      ValueError: one that is empty, long, or not printable, or could be part of a path.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an adapter must be a text, not {type(name).__name__}")
    if not 0 < len(name) <= LONGEST or not name.isprintable() or name != name.strip():
        raise ValueError(f"the name of an adapter must be 1 to {LONGEST} printable characters, not {quoted(name)}")
    if name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError(f"the name of an adapter has no slash and begins with no dot, unlike {quoted(name)}")
    return name


class AdapterFolder:
    """Adapters as they lie in a folder: NAME, and of FT_ID@STEP also FT_ID/STEP; with or without a suffix of SUFFIXES.

    Raises:
      NotADirectoryError: there is no such folder.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.is_dir():
            raise NotADirectoryError(f"{self.path}: no folder of adapters")

    def find(self, name: object) -> Path | None:
        """The file or folder of a name; None where there is none, or where links lead out of this folder."""
        try:
            tune, _, step = check_name(name).rpartition("@")
            places = [(name,), *([(check_name(tune), check_name(step))] if tune and step else [])]
        except (TypeError, ValueError):
            return None
        root = self.path.resolve()
        for place in places:
            for suffix in ("", *SUFFIXES):
                found = _real(root.joinpath(*place[:-1], f"{place[-1]}{suffix}"))
                if found is not None and found.is_relative_to(root) and (_is_file(found) or _is_adapter(found)):
                    return found
        return None

    def names(self) -> tuple[str, ...]:
        """Of all that are there, sorted. One that is deeper than FT_ID/STEP has none."""
        found = set[str]()
        for entry in _listed(self.path):
            inner = [] if _is_file(entry) or _is_adapter(entry) else _listed(entry)
            found.update([f"{entry.name}@{_stem(each)}" for each in inner] or [_stem(entry)])
        return tuple(sorted(name for name in found if self.find(name) is not None))


def _real(path: Path) -> Path | None:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None


def _listed(folder: Path) -> list[Path]:
    """Folders, and files that may be adapters."""
    try:
        entries = [each for each in folder.iterdir() if not each.name.startswith(".")]
    except OSError:
        return []
    return [each for each in entries if each.is_dir() or _is_file(each)]


def _is_adapter(folder: Path) -> bool:
    """Whether it holds the files of one, and not one a step."""
    if (folder / "adapter_config.json").exists():
        return True
    files = [each for each in _listed(folder) if _is_file(each)]
    one = [each for each in files if each.suffix == SUFFIXES[0]] or files  # as they are read
    return len(one) == 1 and not one[0].stem.isdecimal()


def _is_file(path: Path) -> bool:
    return path.suffix in SUFFIXES and path.is_file()


def _stem(path: Path) -> str:
    return path.stem if _is_file(path) else path.name
