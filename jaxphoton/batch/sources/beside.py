"""What a shell's glob brings along: images under other suffixes, and texts that lie beside images."""

from __future__ import annotations

import functools
import io
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator

from jaxphoton.batch.sources.item import IMAGE_SUFFIXES
from jaxphoton.batch.sources.storage import absolute, is_remote, parent, suffix_of
from jaxphoton.batch.sources.unpacking import TAR_SUFFIXES
from jaxphoton.files import first_bytes

_HEAD_BYTES = 1 << 16
# Of files whose suffix says something else, only what no text begins with is taken for an image.
_CERTAIN = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|....ftyp(avi|hei|mif|msf)", re.S
)
_LISTS = (".txt", ".jsonl")
_CONTAINERS = (".parquet", *TAR_SUFFIXES)


def begins_like_an_image(path: str) -> bool:
    """Whether a file of this machine, whose suffix is none of an image, is one by its first bytes."""
    if is_remote(path) or suffix_of(path) in IMAGE_SUFFIXES:
        return False
    known = path.lower().endswith((*_LISTS, *_CONTAINERS))
    head = first_bytes(path, 64 if known else _HEAD_BYTES)
    return _CERTAIN.match(head) is not None or (not known and _pillow_opens(head))


class Beside:
    """Knows which of several inputs are no images and no lists of images, but lie beside images that are inputs too."""

    def __init__(self, specs: Iterable[str]):
        self._specs = set(specs)
        self._folders = {posixpath.dirname(spec) for spec in self._specs if suffix_of(spec) in IMAGE_SUFFIXES}

    def __contains__(self, spec: str) -> bool:
        suffix = suffix_of(spec)
        if suffix in IMAGE_SUFFIXES or posixpath.dirname(spec) not in self._folders:
            return False
        if is_remote(spec) or not os.path.isfile(spec):
            return False
        if suffix in _LISTS:
            return self._is_text(spec)
        return not spec.lower().endswith(_CONTAINERS) and not begins_like_an_image(spec)

    def _is_text(self, spec: str) -> bool:
        stem = posixpath.splitext(spec)[0]
        ends = (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))
        if any(stem + end in self._specs for end in ends) and not begins_like_an_image(spec):
            return True
        return all(named in self._places for named in _named_in(spec)) and not begins_like_an_image(spec)

    @functools.cached_property
    def _places(self) -> set[str]:
        return {absolute(spec) for spec in self._specs}


def _named_in(spec: str) -> Iterator[str]:
    """The files and addresses that the first lines of a list name; nothing for a text that is no list."""
    named = _named_in_json if suffix_of(spec) == ".jsonl" else _named_in_text
    for line in first_bytes(spec, _HEAD_BYTES).splitlines():
        if (text := line.decode("utf-8", "surrogateescape").strip()) and (path := named(text, spec)) is not None:
            yield path


def _named_in_text(line: str, spec: str) -> str | None:
    path = absolute(line, parent(spec))
    return path if is_remote(path) or suffix_of(path) in IMAGE_SUFFIXES or os.path.isfile(path) else None


def _named_in_json(line: str, spec: str) -> str | None:
    from jaxphoton.batch.sources.lists import IMAGE_COLUMNS
    from jaxphoton.batch.sources.values import path_of

    try:
        row = json.loads(line)
    except RecursionError:
        return None
    except ValueError:
        # Cut off where reading the head ended, and long: an image in it.
        return spec if len(line) > _HEAD_BYTES // 2 else None
    for name in IMAGE_COLUMNS if isinstance(row, dict) else ():
        if name in row:
            path = path_of(row[name])
            return spec if path is None else absolute(path, parent(spec))
    return None


def _pillow_opens(head: bytes) -> bool:
    from jaxphoton.image.formats import open_image  # which brings numpy

    try:
        with open_image(io.BytesIO(head)):
            return True
    except Exception:  # broken files make Pillow raise nearly anything
        return False
