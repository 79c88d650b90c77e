"""Images in webdataset tars: members that share their name up to the first dot are one sample."""

from __future__ import annotations

import functools
import json
import os
import tarfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from typing import IO, Any

from jaxphoton.batch.errors import EntryError, SourceError
from jaxphoton.batch.sources.archive import read_member, samples
from jaxphoton.batch.sources.base import LOOKED_AT, EndOfSelection, Seen, Skipped, SourceOptions, Wanted, every
from jaxphoton.batch.sources.containers import Containers
from jaxphoton.batch.sources.item import Item, broken
from jaxphoton.batch.sources.sample import Sample
from jaxphoton.batch.sources.storage import is_remote
from jaxphoton.batch.sources.unpacking import first_member, open_tar
from jaxphoton.files import open_regular
from jaxphoton.messages import quoted

_APART = "members of one sample are apart, and a tar elsewhere is read in passing: sort it (tar --sort=name)"
# Of a caption or of a sample's fields.
_TEXT_BYTES = 1 << 24


class Tar(Containers):
    """The samples of one or more tars that have an image. Keys are `<tar>/<sample>`.

    Images of a local tar are read where they lie, when they are asked for; those of a remote or compressed one are read
    in passing. A tar that cannot be read, or from where it is damaged, is one failing item.

    Raises:
      SourceError: the first tar is none, or is empty.
    """

    def __init__(self, paths: list[str], options: SourceOptions):
        super().__init__(paths, options)
        try:
            empty = first_member(paths[0], options.retry) is None
        except Exception as error:  # as in `items`
            raise SourceError(f"{paths[0]}: cannot be read as tar: {error}") from error
        if empty:
            raise SourceError(f"{paths[0]}: the tar is empty")

    def columns(self, needed: Collection[str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        name, path = self.parts[0]
        # What is damaged is said when its turn comes.
        with suppress(Exception), open_tar(path, self._options.retry) as file:
            for sample in islice(samples(file, whole=False), LOOKED_AT):
                found |= dict.fromkeys(sample.members)
                if "json" in sample.members and not found.keys() >= set(needed):
                    found |= dict.fromkeys(json_object(read_member(file, sample.members["json"], _TEXT_BYTES)))
                if found.keys() >= set(needed):
                    break
        return tuple(found)

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        skipped = Skipped()
        wanted = self._options.kept(wanted, skipped)
        for name, path in self.parts:
            try:
                with open_tar(path, self._options.retry) as file:
                    yield from _Entries(name, path, file, self._options, skipped).items(wanted)
            except EndOfSelection:
                raise
            except Exception as error:  # storage libraries pass on whatever their HTTP client throws
                if wanted(name):
                    reason = "corrupt" if isinstance(error, tarfile.TarError) else "unreadable"
                    yield broken(name, path, reason, f"cannot be read as tar: {error}")
        self.skipped = skipped


class _Entries:
    """The items of one open tar."""

    def __init__(self, name: str, path: str, file: IO[bytes], options: SourceOptions, skipped: Skipped):
        self._name, self._path, self._file, self._options, self._skipped = name, path, file, options, skipped
        self._seen = Seen()
        # Of what is a copy of the tar, nothing can be read later.
        self._copy = is_remote(path) or not os.path.samestat(os.fstat(file.fileno()), os.stat(path))

    def items(self, wanted: Wanted) -> Iterator[Item]:
        for sample in samples(self._file, whole=not is_remote(self._path)):
            yield from self._entry(sample, wanted)

    def _entry(self, sample: Sample, wanted: Wanted) -> Iterator[Item]:
        extension = sample.image(self._options.image_column)
        if extension is None and not sample.apart:
            self._skipped.samples += bool(sample.members or sample.dangling)
            return
        first = sample.run[0] if extension is None else (sample.members | sample.dangling)[extension]
        key, where = f"{self._name}/{sample.name}", f"{self._path}#{first.name}"
        again = self._seen.clash(key, str(first.offset)) is not None
        if again or sample.apart:
            key = f"{key} (byte {first.offset})"
        if not wanted(key):
            return
        if sample.apart:
            yield broken(key, where, "bad-entry", _APART)
        elif again:
            yield broken(key, where, "duplicate-key", "a sample of this name came before")
        elif extension in sample.dangling:
            yield broken(key, where, "not-found", f"a link to {quoted(first.linkname)}, which is no file of the tar")
        else:
            yield self._item(key, where, sample, first)

    def _item(self, key: str, where: str, sample: Sample, image: tarfile.TarInfo) -> Item:
        try:
            columns = _columns(self._file, sample, self._options.all_columns)
        except OSError as error:
            return broken(key, where, "bad-entry", f"a text of {error}")
        if lacking := [name for name in self._options.required_columns if name not in columns]:
            return broken(key, where, "bad-entry", f"no member and no JSON field {lacking[0]!r}")
        data = None
        if self._copy:
            try:
                data = read_member(self._file, image)
            except OSError as error:
                return broken(key, where, "unreadable", f"cannot be read: {error}")
        load = functools.partial(_load, self._path, image, key, data)
        return Item(key, where, load, columns=columns, members=tuple(sample.members))


def _columns(file: IO[bytes], sample: Sample, asked: tuple[str, ...]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    fields: dict[str, Any] | None = None
    for name in asked:
        if name in sample.members:
            columns[name] = read_member(file, sample.members[name], _TEXT_BYTES).decode("utf-8", "replace").strip()
        elif "json" in sample.members:
            if fields is None:
                fields = json_object(read_member(file, sample.members["json"], _TEXT_BYTES))
            if fields.get(name) is not None:
                columns[name] = fields[name]
    return columns


def json_object(data: bytes) -> dict[str, Any]:
    """The fields of a JSON object; nothing for what is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _load(path: str, member: tarfile.TarInfo, key: str, data: bytes | None) -> bytes:
    if data is None:
        with open_regular(path) as file:
            data = read_member(file, member)
    if len(data) < member.size:
        raise EntryError(key, "truncated", f"the tar ends after {len(data)} of its {member.size} bytes")
    return data
