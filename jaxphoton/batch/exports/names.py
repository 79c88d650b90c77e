"""Names of outputs: of the file that a key gets below a folder; of tars, with the part of the source each holds."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as numbers
from pathlib import Path

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.journal.keymap import digest
from jaxphoton.batch.sources.base import Source
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES
from jaxphoton.batch.sources.selection import Selection, in_shard
from jaxphoton.batch.sources.tar import Tar

LONGEST = 255  # bytes of a file name on every usual file system
# NUL, and what stands for no byte (U+DC80 to U+DCFF stand for the bytes of undecodable file names).
_FORBIDDEN = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


def relative_path(key: str, extension: str) -> str:
    """Where the output of a key goes below a folder: its path, never outside, with `extension` for an image's."""
    parts = re.sub(r"^[A-Za-z0-9+.-]+://", "", key).split("/")
    *folders, last = ["_" if part == ".." else part for part in parts if part not in ("", ".")] or ["_"]
    stem = with_extension(last, extension).removesuffix(extension)
    return "/".join([*(fitted(folder) for folder in folders), fitted(stem, extension)])


def with_extension(path: str, extension: str) -> str:
    """`path` with the suffix of an image replaced, any other kept."""
    stem, suffix = posixpath.splitext(path)
    return (stem if suffix.lower() in IMAGE_SUFFIXES else path) + extension


def fitted(stem: str, end: str = "") -> str:
    """`stem + end` where that can be the name of a file. Else the stem is cut to what fits and gets its digest: always
    the same for the same stem, another for every other."""
    allowed = _FORBIDDEN.sub("_", stem)
    room = LONGEST - len(os.fsencode(end))
    if allowed == stem and len(os.fsencode(stem)) <= room:
        return stem + end
    mark = f"-{digest(stem):016x}"
    start = os.fsencode(allowed)[: room - len(mark)].decode("utf-8", "ignore")
    return start + mark + end


def is_folder(out: str | os.PathLike) -> bool:
    """Whether an output is named as a folder ("x/", ".", ".."), or is one."""
    text = os.fspath(out)
    return text.endswith("/") or posixpath.basename(text) in (".", "..") or os.path.isdir(text)


_NUMBER = re.compile(r"%(0[1-9])?d")
# What people write for several files: format strings, braces, globs.
_SEVERAL = re.compile(r"%|[*?]|\{[^{}]*(\.\.|,)[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Copy:
    """A tar of the source that is copied.

    Attributes:
      name: of the tar, with which the keys of its samples begin.
      path: where it is.
      target: where the copy goes.
      shard: (index, count) where only those samples are copied whose key falls to this part; else (0, 1).
    """

    name: str
    path: str
    target: Path
    shard: tuple[int, int]

    def has(self, key: str) -> bool:
        """Whether a sample is one of this copy."""
        return in_shard(key, self.shard)


def tars_in_folder(out: str | os.PathLike) -> bool:
    """Whether tars go into a folder `out`, not to files of that name or pattern."""
    return is_folder(out) or Path(out).suffix.lower() != ".tar"


def is_pattern(out: str | os.PathLike) -> bool:
    """Whether a name stands for several tars by number: "captions-%05d.tar".

    Raises:
      ExportError: it looks like several, and is no such pattern.
    """
    name = Path(out).name
    rest, found = _NUMBER.subn("", name)
    if _SEVERAL.search(rest) or found > 1:
        raise ExportError(f"{out}: several tars are named by one number, as in captions-%05d.tar")
    return found == 1


def copies(source: Tar, out: str | os.PathLike, shard: tuple[int, int] = (0, 1)) -> list[Copy]:
    """What becomes of the tars of a source, or of a shard's part of them; no two shards of one count have a target in
    common, but for an `out` that is one file.

    Args:
      out: a folder, for tars of the same names; a pattern, for a number each; or a file, for a single one.

    Raises:
      ExportError: several tars would go to one file.
    """
    part, by_key = Selection(shard).part(source)
    assert isinstance(part, Tar)
    index, count = shard
    cut = shard if by_key else (0, 1)
    if tars_in_folder(out):
        end = f"-{index:05d}-of-{count:05d}.tar" if by_key else ".tar"
        targets = [Path(out) / f"{name}{end}" for name, _ in part.parts]
    elif is_pattern(out):
        # The number of the tar in the whole source; of one that every shard has a part of, of this part.
        targets = [_numbered(out, place * count + index) for place in range(len(part.parts))]
    elif len(part.parts) > 1:
        raise ExportError(f"{out}: {len(part.parts)} tars were read; name a folder, or a pattern as in {_example(out)}")
    else:
        targets = [Path(out)]
    return [Copy(name, path, target, cut) for (name, path), target in zip(part.parts, targets, strict=True)]


def packs(out: str | os.PathLike, shard: tuple[int, int] = (0, 1)) -> Iterator[Path]:
    """The tars that samples are packed into, one after the other: a single one for a file `out`. Of several shards
    each has numbers of its own."""
    index, count = shard
    if tars_in_folder(out):
        out = Path(out) / "%05d.tar"
    if not is_pattern(out):
        return iter([Path(out)])
    return (_numbered(out, number) for number in numbers(index, count))


def check_tars(source: Source, out: str | os.PathLike, shard: tuple[int, int]) -> list[Path]:
    """The tars that will be written, as far as that is known before the work.

    Raises:
      ExportError: several would go to one file, or one would replace a tar of the source.
    """
    if not isinstance(source, Tar):
        return [next(packs(out, shard))]
    found = copies(source, out, shard)
    for copy in found:
        for _, path in source.parts:
            if os.path.exists(path) and copy.target.exists() and os.path.samefile(path, copy.target):
                raise ExportError(f"{copy.target} is a tar that was read: name another place")
    return [copy.target for copy in found]


def _numbered(out: str | os.PathLike, number: int) -> Path:
    out = Path(out)
    return out.with_name(out.name % number)


def _example(out: str | os.PathLike) -> str:
    return f"{Path(out).stem}-%05d.tar"
