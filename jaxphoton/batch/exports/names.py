"""Names of outputs: of the file that a key gets below a folder, and of tars by number."""

from __future__ import annotations

import os
import posixpath
import re

from jaxphoton.batch.keymap import digest
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES

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
