"""Webdataset tars: those of the source with the texts put in, or new ones packed from any other source."""

from __future__ import annotations

import io
import json
import os
import posixpath
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from PIL import Image

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.options import ExportOptions, ExportReport, merge, relative_path
from jaxphoton.batch.exports.rows import recaption
from jaxphoton.batch.keymap import digest
from jaxphoton.batch.quality import texts
from jaxphoton.batch.reading import JournalReader
from jaxphoton.batch.record import Record
from jaxphoton.batch.sources.base import Seen, Source
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES
from jaxphoton.batch.sources.storage import is_remote, open_binary, seekable, suffix_of
from jaxphoton.batch.sources.tar import Tar, json_object, read_member, runs, split_name
from jaxphoton.image.errors import ImageError


def export_webdataset(journal: JournalReader, source: Source, out: Path, options: ExportOptions) -> ExportReport:
    """Writes tars with a text member in every sample that has a result.

    Tars as source are copied, every other member with them, to tars of the same names in the folder `out` (a single
    one also to a file `out`). The images of any other source are packed into the file `out`, or into several where its
    name is a pattern ("captions-%05d.tar"). A `.json` member keeps its fields and gets those of `recaption`.

    Args:
      source: what the run has read, or its part (`Selection.part`).
      options: `existing` is about members, and fields of `.json` members, that the source's tars have already.

    Raises:
      ExportError: an output would replace an input.
    """
    report = ExportReport()
    if isinstance(source, Tar):
        for name, path in source.parts:
            single = len(source.parts) == 1 and out.suffix == ".tar"
            target = out if single else out / f"{name}.tar"
            if not is_remote(path) and target.exists() and os.path.samefile(target, path):
                raise ExportError(f"{target} is the tar that was read: name another place")
            try:
                with replacing(target) as file, tarfile.open(fileobj=file, mode="w") as tar:
                    _copy(journal, name, path, tar, options, report)
            except OSError as error:
                raise ExportError(f"{target}: {error.strerror or error}") from error
    else:
        _pack(journal, source, out, options, report)
    return report


def _copy(
    journal: JournalReader, name: str, path: str, tar: tarfile.TarFile, options: ExportOptions, report: ExportReport
) -> None:
    seen = Seen()
    extension = options.extension[1:]
    with seekable(open_binary(path)) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            for sample, found in runs(file):
                if found[-1].offset_data + found[-1].size > end:
                    continue  # to the error that follows
                key = f"{name}/{sample}"
                record = journal.get(key) if seen.clash(key, str(found[0].offset)) is None else None
                old = next((each for each in found if split_name(each.name)[1] == extension), None)
                text = _text(record, old and read_member(file, old), options, report)
                for member in found:
                    if member is not old or text is None:
                        tar.addfile(member, _body(file, member))
                if text is not None:
                    first = found[0].name
                    stem = first[: len(first) - len(posixpath.basename(first))] + posixpath.basename(sample)
                    _add(tar, old.name if old else f"{stem}.{extension}", text, found[0].mtime)
        except tarfile.TarError as error:
            report.problem(f"{path}: cannot be read as tar: {error}; copied up to there")


def _body(file: IO[bytes], member: tarfile.TarInfo) -> IO[bytes] | None:
    if not member.isreg():
        return None
    file.seek(member.offset_data)
    return file


def _text(record: Record | None, old: bytes | None, options: ExportOptions, report: ExportReport) -> bytes | None:
    """What the member should hold, None to leave it as it is."""
    if record is None or record.status == "failed":
        report.failed += record is not None
        return None
    if options.extension != ".json" and not texts(record.results):
        report.problem(f"{record.key}: it has no text; use the extension .json")
        return None
    if options.extension == ".json":
        text = _json(record, old or b"", options)
    else:
        text = merge(None if old is None else old.decode("utf-8", "replace"), "\n".join(texts(record.results)), options)
    if text is None:
        report.unchanged += 1
        return None
    report.written += 1
    return text.encode("utf-8", "backslashreplace")


def _json(record: Record, old: bytes, options: ExportOptions) -> str | None:
    ours = {name: value for name, value in recaption(record).items() if value not in (None, [])}
    theirs = json_object(old)
    if options.existing == "skip" and not theirs and old.strip() not in (b"", b"{}"):
        return None  # something else than an object
    new = ours | theirs
    if options.existing == "overwrite":
        # How a sample names itself stays its own.
        new |= {name: value for name, value in ours.items() if name not in ("key", "url")}
    return None if new == theirs else json.dumps(new, ensure_ascii=False)


def _pack(journal: JournalReader, source: Source, out: Path, options: ExportOptions, report: ExportReport) -> None:
    names = Seen()
    with _Shards(out, options.shard_size) as shards:
        for item in source.items(journal.__contains__):
            record = journal.get(item.key)
            if record is None or record.status == "failed":
                report.failed += 1
                continue
            try:
                data = item.read()
            except ImageError as error:
                report.problem(str(error))
                continue
            # The first dot of a member's name ends the name of its sample.
            folder, _, base = relative_path(item.key, "").rpartition("/")
            name = f"{folder}/{base.replace('.', '_')}".lstrip("/")
            if names.clash(name, item.key):
                name = f"{name}_{digest(item.key):016x}"
            tar = shards.tar()
            _add(tar, name + _suffix(item.path, data), data)
            if (text := _text(record, None, options, report)) is not None:
                _add(tar, name + options.extension, text)


class _Shards:
    """The tars that samples are packed into: one, or where the name is a pattern, one for every so many samples."""

    def __init__(self, out: Path, size: int):
        self._out, self._size = out, size if "%" in out.name else None
        self._number, self._written = 0, 0
        self._stack, self._tar = ExitStack(), None

    def tar(self) -> tarfile.TarFile:
        """The one for the next sample."""
        if self._tar is None or self._written == self._size:
            self._stack.close()
            name = self._out.name if self._size is None else self._out.name % self._number
            file = self._stack.enter_context(replacing(self._out.with_name(name)))
            self._tar = self._stack.enter_context(tarfile.open(fileobj=file, mode="w"))
            self._number, self._written = self._number + 1, 0
        self._written += 1
        return self._tar

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def _add(tar: tarfile.TarFile, name: str, data: bytes, mtime: float = 0) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), mtime
    tar.addfile(member, io.BytesIO(data))


def _suffix(path: str, data: bytes) -> str:
    if "#" not in path and suffix_of(path) in IMAGE_SUFFIXES:
        return suffix_of(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return f".{image.format}".lower().replace("jpeg", "jpg")
    except OSError:
        return ".img"
