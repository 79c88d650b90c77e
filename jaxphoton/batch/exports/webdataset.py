"""Webdataset tars: those of the source with the texts put in, or new ones packed from any other source."""

from __future__ import annotations

import os
import tarfile
from contextlib import ExitStack
from typing import IO

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.members import add_member, member_of
from jaxphoton.batch.exports.names import Copy, check_tars, copies
from jaxphoton.batch.exports.options import ExportOptions, ExportReport
from jaxphoton.batch.exports.packing import pack
from jaxphoton.batch.journal.keymap import KeyMap
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.sources.archive import read_member, samples
from jaxphoton.batch.sources.base import Seen, Source
from jaxphoton.batch.sources.containers import Containers
from jaxphoton.batch.sources.sample import is_sample_file, split_name
from jaxphoton.batch.sources.selection import Selection, in_shard
from jaxphoton.batch.sources.storage import is_remote
from jaxphoton.batch.sources.tar import Tar
from jaxphoton.batch.sources.unpacking import open_tar


def export_webdataset(
    journal: JournalReader,
    source: Source,
    out: str | os.PathLike,
    options: ExportOptions,
    report: ExportReport,
    shard: tuple[int, int] = (0, 1),
) -> None:
    """Writes tars with a text member in every sample that has a result.

    Tars as source are copied, every other member with them: to tars of the same names in a folder `out`, or to tars by
    number where its name is a pattern ("captions-%05d.tar"), or a single one to a file `out`. The images of any other
    source are packed into the file `out`, or into several by a pattern or in a folder. A `.json` member keeps its
    fields and gets those of `recaption`.

    Args:
      source: what the run has read.
      options: `existing` is about members, and fields of `.json` members, that the source's tars have already.
      shard: (index, count), the part that is written; together the parts hold every sample once, and no two of them
        write the same tar unless `out` is one file.

    Raises:
      ExportError: an output would replace an input.
    """
    check_tars(source, out, shard)
    met = KeyMap("B")
    if not isinstance(source, Tar):
        pack(journal, source, out, options, report, shard, met)
    else:
        for copy in copies(source, out, shard):
            try:
                _copy(journal, copy, options, report, met)
            except OSError as error:
                raise ExportError(f"{copy.target}: {error.strerror or error}") from error
    _lose_the_rest(journal, source, shard, report, met)


def _lose_the_rest(
    journal: JournalReader, source: Source, shard: tuple[int, int], report: ExportReport, met: KeyMap
) -> None:
    """Images that the source has no more: their results have no place to go to."""
    part, by_key = Selection(shard).part(source)
    names = tuple(f"{name}/" for name, _ in part.parts) if isinstance(part, Containers) and shard != (0, 1) else ("",)
    for record in journal.records():
        mine = record.key.startswith(names) and (not by_key or in_shard(record.key, shard))
        if record.status == "ok" and mine and record.key not in met:
            report.lose(record, "the input has no such image any more")


def _copy(journal: JournalReader, copy: Copy, options: ExportOptions, report: ExportReport, met: KeyMap) -> None:
    try:
        file = open_tar(copy.path)
    except Exception as error:  # storage libraries pass on whatever their HTTP client throws
        report.lose_key(copy.name, copy.path, f"cannot be read as tar: {error}")
        return
    with file, ExitStack() as stack:
        tar = None
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        seen = Seen()
        try:
            for sample in samples(file, whole=not is_remote(copy.path)):
                key, found = f"{copy.name}/{sample.name}", sample.run
                # What is behind the end of the file goes to the error that follows.
                if not copy.has(key) or max(map(_end, found)) > end:
                    continue
                if tar is None:
                    tar = stack.enter_context(
                        tarfile.open(fileobj=stack.enter_context(replacing(copy.target)), mode="w")
                    )
                again = seen.clash(key, str(found[0].offset)) is not None
                met[key] = 1
                _copy_sample(file, tar, found, None if again else key, journal, options, report)
        except tarfile.TarError as error:
            report.lose_key(copy.name, copy.path, f"cannot be read as tar: {error}; copied up to there")
        if tar is None:
            report.notes.append(f"{copy.target} is not written: it would hold no sample")


def _copy_sample(
    file: IO[bytes],
    tar: tarfile.TarFile,
    found: list[tarfile.TarInfo],
    key: str | None,
    journal: JournalReader,
    options: ExportOptions,
    report: ExportReport,
) -> None:
    """Copies members and puts the text right behind the last one of the sample itself: hidden members that follow
    (of a Mac, "._b.jpg" before "b.jpg") would part it from its sample for those who read on."""
    own = [member for member in found if is_sample_file(member)]
    old = next((each for each in own if split_name(each.name)[1] == options.extension[1:]), None)
    record = journal.get(key) if key is not None else None
    text = member_of(record, old and read_member(file, old), options, report)
    for member in found:
        if member is not old or text is None:
            _add_copy(tar, file, member)
        if text is not None and member is own[-1]:
            name = old.name if old else _member_name(own[0], options.extension)
            add_member(tar, name, text, own[0].mtime)


def _member_name(first: tarfile.TarInfo, extension: str) -> str:
    folder, slash, base = first.name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}{extension}"


def _end(member: tarfile.TarInfo) -> int:
    """Where what a member holds ends in the tar."""
    pieces: list[tuple[int, int]] | None = member.sparse  # pyright: ignore[reportAssignmentType]
    return member.offset_data + (member.size if pieces is None else sum(size for _, size in pieces))


def _add_copy(tar: tarfile.TarFile, file: IO[bytes], member: tarfile.TarInfo) -> None:
    if not member.isreg():
        tar.addfile(member)
    elif member.sparse is None:
        file.seek(member.offset_data)
        tar.addfile(member, file)
    else:  # tarfile reads the map of holes, and writes none
        add_member(tar, member.name, read_member(file, member), member.mtime)
