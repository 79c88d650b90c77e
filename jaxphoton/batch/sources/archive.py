"""What a tar holds: its members in whole samples, links resolved, archives joined end to end read through."""

from __future__ import annotations

import copy
import posixpath
import tarfile
from array import array
from collections.abc import Iterable, Iterator
from typing import IO

from jaxphoton.batch.journal.keymap import KeyMap, digest
from jaxphoton.batch.sources.sample import Sample, is_hidden, is_link, split_name
from jaxphoton.batch.sources.storage import MAX_FILE_BYTES

_LINKS = 8  # that may lead to one another


def members(file: IO[bytes], start: int = 0) -> Iterator[tarfile.TarInfo]:
    """Every member of a tar that can seek, in order, and of those that were joined to it.

    Raises:
      tarfile.TarError: it is damaged or cut short, with the byte where.
    """
    place = start
    while True:
        file.seek(place)
        # Of an archive that does not begin the file, tarfile takes a damaged header for the end.
        with tarfile.TarFile(fileobj=file) as tar:
            before = place - 1
            while member := tar.next():
                # A size below zero would lead back, and round for ever.
                if tar.offset <= before or member.size < 0:
                    raise tarfile.ReadError(f"damaged at byte {member.offset}")
                before = tar.offset
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or it keeps them all
                yield member
            ended = tar.offset
        following = _behind_zeros(file, ended)
        if following is None:
            return
        if following == ended:
            raise tarfile.ReadError(f"damaged at byte {ended}")
        place = following


def samples(file: IO[bytes], whole: bool = True) -> Iterator[Sample]:
    """The samples of a tar, each with all its members though they may lie apart. An image that comes again begins
    another sample of the same name, any other member takes the place of the earlier one (`Sample.update`).

    Memory: 17 to 50 bytes for each sample, 300 for each whose members are apart.

    Args:
      whole: read all headers first, to find what lies apart. Without, a sample is what stands together, and what comes
        later of the same name has `apart`.

    Raises:
      tarfile.TarError: as `members`, behind the samples that came before.
    """
    yield from _Reader(file, whole).samples()


def read_member(file: IO[bytes], member: tarfile.TarInfo, most: int = MAX_FILE_BYTES) -> bytes:
    """What a member holds; fewer bytes than its size where the tar ends.

    Raises:
      OSError: that is more than `most`.
    """
    if member.size > most:
        raise OSError(f"{member.size:,} bytes, and at most {most:,} are read")
    if member.sparse is None:
        file.seek(member.offset_data)
        return file.read(member.size)
    data, place = bytearray(member.size), member.offset_data
    pieces: list[tuple[int, int]] = member.sparse  # pyright: ignore[reportAssignmentType]
    for offset, size in pieces:  # which lie behind one another in the tar
        file.seek(place)
        data[offset : offset + size] = file.read(size)
        place += size
    return bytes(data)


def _behind_zeros(file: IO[bytes], place: int) -> int | None:
    """Where the first block that is not empty begins, from one on; None if none is left."""
    file.seek(place)
    while chunk := file.read(128 * tarfile.BLOCKSIZE):
        if kept := len(chunk.lstrip(b"\0")):
            return place + (len(chunk) - kept) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        place += len(chunk)
    return None


class _Reader:
    """Puts samples together."""

    def __init__(self, file: IO[bytes], whole: bool):
        self._file, self._whole = file, whole
        self._seen = KeyMap("B")  # samples
        self._ends = KeyMap("Q")  # of samples whose members lie apart: where the last run begins
        self._pending: dict[int, array[int]] = {}  # of those, where the headers are that were passed
        self._before = KeyMap("Q")  # headers of the members passed, by name: what hard links mean
        self._all = self._before  # what symbolic ones mean
        self._linked = not whole
        if whole:
            self._survey()

    def samples(self) -> Iterator[Sample]:
        for sample in self._runs(members(self._file)):
            end = self._ends.get(sample.name)
            if end is not None:
                held = self._pending.setdefault(digest(sample.name), array("Q"))
                held.extend(member.offset for member in sample.run)
                if sample.run[0].offset == end:
                    yield from self._joined(self._pending.pop(digest(sample.name)))
                continue
            if not self._whole:
                sample.apart = sample.name in self._seen
                self._seen[sample.name] = 1
            yield sample

    def _survey(self) -> None:
        """Finds the samples whose members lie apart, and whether there are links."""
        symbolic = False
        try:
            for sample in self._runs(members(self._file)):
                if sample.name in self._seen:
                    self._ends[sample.name] = sample.run[0].offset
                self._seen[sample.name] = 1
                self._linked |= any(map(is_link, sample.run))
                symbolic |= any(member.issym() for member in sample.run)
            if symbolic:
                self._all = KeyMap("Q")
                for member in members(self._file):
                    self._all[posixpath.normpath(member.name)] = member.offset
        except tarfile.TarError:
            pass  # it comes again when the samples are read

    def _joined(self, offsets: Iterable[int]) -> Iterator[Sample]:
        """The sample of members that lie apart; several where an image comes again."""
        sample = None
        for part in self._runs(self._at(offset) for offset in offsets):
            if sample is not None:
                if sample.update(part):
                    continue
                yield sample
            sample = part
        if sample is not None:
            yield sample

    def _runs(self, found: Iterable[tarfile.TarInfo]) -> Iterator[Sample]:
        """Consecutive members of one name; what comes before a fault is yielded before it."""
        sample = Sample("")
        try:
            for member in found:
                if self._linked:
                    self._before[posixpath.normpath(member.name)] = member.offset
                    member = self._resolved(member)
                if (member.isreg() or is_link(member)) and not is_hidden(member):
                    name, extension = split_name(member.name)
                    if sample.run and (name != sample.name or extension in sample.members):
                        yield sample
                        sample = Sample(name)
                    sample.name = name
                sample.add(member)
        except tarfile.TarError:
            if sample.run:
                yield sample
            raise
        if sample.run:
            yield sample

    def _resolved(self, member: tarfile.TarInfo) -> tarfile.TarInfo:
        """The file that a link means, under the name of the link; the link itself if it leads to no file of the tar."""
        target = member
        for _ in range(_LINKS):
            if target.isreg():
                break
            if not is_link(target):
                return member
            beside = posixpath.dirname(target.name) if target.issym() else ""
            name = posixpath.normpath(posixpath.join(beside, target.linkname))
            place = (self._all if target.issym() else self._before).get(name)
            if place is None or place == target.offset:
                return member
            target = self._at(place)
        if target is member or not target.isreg():
            return member
        file = copy.copy(target)
        file.name, file.offset, file.pax_headers = member.name, member.offset, {}
        return file

    def _at(self, offset: int) -> tarfile.TarInfo:
        """The member whose header begins there."""
        self._file.seek(offset)
        with tarfile.TarFile(fileobj=self._file) as tar:
            member = tar.next()
        if member is None:
            raise tarfile.ReadError(f"damaged at byte {offset}")
        return member
