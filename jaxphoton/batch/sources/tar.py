"""Images in webdataset tars: consecutive members that share their name up to the first dot are one sample."""

from __future__ import annotations

import functools
import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from jaxphoton.batch.errors import EntryError, SourceError
from jaxphoton.batch.sources.base import EndOfSelection, Seen, Source, SourceOptions, Wanted, every
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES, Item, broken
from jaxphoton.batch.sources.patterns import named
from jaxphoton.batch.sources.storage import is_remote, open_binary, read_range, seekable


@dataclass(frozen=True, slots=True)
class Sample:
    """Members of one name: extension ("jpg", "seg.png", in lower case) -> what the tar says about it."""

    name: str
    members: dict[str, tarfile.TarInfo]

    def image(self, asked: str | None) -> str | None:
        """The extension of the image, None where there is none."""
        if asked is not None:
            return asked if asked in self.members else None
        images = [name for name in self.members if f".{name.rpartition('.')[2]}" in IMAGE_SUFFIXES]
        return min(images, key=lambda name: name.count("."), default=None)


def split_name(member: str) -> tuple[str, str]:
    """ "./a/b.seg.PNG" -> ("a/b", "seg.png")."""
    folder, _, base = posixpath.normpath(member).rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower()


def members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Every member of a tar that can seek, in order.

    Raises:
      tarfile.TarError: it is damaged or cut short, with the byte where.
    """
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while member := tar.next():
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or it keeps them all
            yield member
        # tarfile takes a damaged header for the end.
        file.seek(tar.offset)
        block = file.read(tarfile.BLOCKSIZE)
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"damaged at byte {tar.offset}")


def runs(file: IO[bytes]) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """Consecutive members of one sample name, with the hidden ones and those that are no files among them.

    Raises:
      tarfile.TarError: as `members`, behind the members that came before.
    """
    name, run = "", []
    try:
        for member in members(file):
            own = split_name(member.name)[0] if is_sample_file(member) else name
            if run and own != name:
                yield name, run
                run = []
            name = own
            run.append(member)
    except tarfile.TarError:
        if run:
            yield name, run
        raise
    if run:
        yield name, run


def is_sample_file(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not posixpath.basename(member.name).startswith(".")


class Tar(Source):
    """The samples of one or more tars that have an image. Keys are `<tar>/<sample>`.

    Images of a local tar are read where they lie, when they are asked for; those of a remote one are read in passing.
    A tar that cannot be read, or from where it is damaged, is one failing item.

    Raises:
      SourceError: the first tar is none, or is empty.
    """

    def __init__(self, paths: list[str], options: SourceOptions):
        self.parts, self._options = named(paths), options
        try:
            with seekable(open_binary(paths[0])) as file:
                empty = next(members(file), None) is None
        except Exception as error:  # as in `items`
            raise SourceError(f"{paths[0]}: cannot be read as tar: {error}") from error
        if empty:
            raise SourceError(f"{paths[0]}: the tar is empty")

    def items(self, wanted: Wanted = every) -> Iterator[Item]:
        for name, path in self.parts:
            seen = Seen()
            try:
                with seekable(open_binary(path)) as file:
                    for sample_name, run in runs(file):
                        sample = Sample(sample_name, {split_name(m.name)[1]: m for m in run if is_sample_file(m)})
                        yield from self._entry(name, path, file, sample, seen, wanted)
            except EndOfSelection:
                raise
            except Exception as error:  # storage libraries pass on whatever their HTTP client throws
                if wanted(name):
                    reason = "corrupt" if isinstance(error, tarfile.TarError) else "unreadable"
                    yield broken(name, path, reason, f"cannot be read as tar: {error}")

    def shard(self, index: int, count: int) -> Source | None:
        if len(self.parts) < count:
            return None
        part = object.__new__(Tar)
        part.parts, part._options = self.parts[index::count], self._options
        return part

    def _entry(
        self, part: str, path: str, file: IO[bytes], sample: Sample, seen: Seen, wanted: Wanted
    ) -> Iterator[Item]:
        extension = sample.image(self._options.image_column)
        if extension is None:
            return
        member = sample.members[extension]
        key, where = f"{part}/{sample.name}", f"{path}#{member.name}"
        if again := seen.clash(key, str(member.offset)) is not None:
            key = f"{key} (byte {member.offset})"
        if not wanted(key):
            return
        columns = _columns(file, sample, self._options.all_columns)
        lacking = [name for name in self._options.required_columns if name not in columns]
        if again:
            yield broken(key, where, "duplicate-key", "a sample of this name came before")
        elif lacking:
            yield broken(key, where, "bad-entry", f"no member and no JSON field {lacking[0]!r}")
        else:
            data = read_member(file, member) if is_remote(path) else None
            yield Item(key, where, functools.partial(_load, path, member, key, data), columns=columns)


def _columns(file: IO[bytes], sample: Sample, asked: tuple[str, ...]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    fields: dict[str, Any] | None = None
    for name in asked:
        if name in sample.members:
            columns[name] = read_member(file, sample.members[name]).decode("utf-8", "replace").strip()
        elif "json" in sample.members:
            if fields is None:
                fields = json_object(read_member(file, sample.members["json"]))
            if fields.get(name) is not None:
                columns[name] = fields[name]
    return columns


def json_object(data: bytes) -> dict[str, Any]:
    """The fields of a JSON object; nothing for what is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_member(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    """What a member holds; fewer bytes than its size where the tar ends."""
    file.seek(member.offset_data)
    return file.read(member.size)


def _load(path: str, member: tarfile.TarInfo, key: str, data: bytes | None) -> bytes:
    if data is None:
        data = read_range(path, member.offset_data, member.size)
    if len(data) < member.size:
        raise EntryError(key, "truncated", f"the tar ends after {len(data)} of its {member.size} bytes")
    return data
