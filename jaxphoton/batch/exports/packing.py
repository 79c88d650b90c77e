"""Images of any source packed into new webdataset tars."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.members import add_member, member_of
from jaxphoton.batch.exports.names import is_pattern, packs, relative_path, tars_in_folder
from jaxphoton.batch.exports.options import ExportOptions, ExportReport
from jaxphoton.batch.journal.keymap import KeyMap, digest
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.sources.base import Seen, Source
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES
from jaxphoton.batch.sources.selection import Selection
from jaxphoton.batch.sources.storage import suffix_of
from jaxphoton.image.errors import ImageError

_QUALITY = 95  # of JPEG


def pack(
    journal: JournalReader,
    source: Source,
    out: str | os.PathLike,
    options: ExportOptions,
    report: ExportReport,
    shard: tuple[int, int],
    met: KeyMap,
) -> None:
    """Writes a sample for each image of the source's part that has a result. See `export_webdataset`.

    Args:
      met: is given the keys of these images.
    """
    names, suffixes = Seen(), Counter()
    size = options.shard_size if tars_in_folder(out) or is_pattern(out) else None
    with _Tars(packs(out, shard), size) as tars:
        for item in Selection(shard).items(source, lambda key: key not in journal):
            met[item.key] = 1
            record = journal.get(item.key)
            if record is None or record.status == "failed":
                report.failed += 1
                continue
            try:
                data = item.read()
                suffix, data = (_jpeg if options.image_suffix == "jpg" else _as_it_is)(item.path, data)
            except ImageError as error:
                report.lose(record, error.fault)
                continue
            suffixes[suffix] += 1
            name = _sample_name(item.key, names)
            tar = tars.next()
            add_member(tar, name + suffix, data)
            if (text := member_of(record, None, options, report)) is not None:
                add_member(tar, name + options.extension, text)
    if len(suffixes) > 1:
        found = ", ".join(f"{number:,} {suffix}" for suffix, number in suffixes.most_common())
        report.notes.append(
            f"{out}: pictures of several suffixes ({found}): Hugging Face datasets reads those of the first five "
            "samples only; --image-suffix jpg makes all of them .jpg"
        )


def _sample_name(key: str, names: Seen) -> str:
    # The first dot of a member's name ends the name of its sample.
    folder, _, base = relative_path(key, "").rpartition("/")
    name = f"{folder}/{base.replace('.', '_')}".lstrip("/")
    return f"{name}_{digest(key):016x}" if names.clash(name, key) else name


class _Tars:
    """The tars that samples are packed into: one after the other, each of so many samples (None: of any number)."""

    def __init__(self, paths: Iterator[Path], size: int | None):
        self._paths, self._size = paths, size
        self._written = 0
        self._stack, self._tar = ExitStack(), None

    def next(self) -> tarfile.TarFile:
        """The one for the next sample."""
        if self._tar is None or self._written == self._size:
            self._stack.close()
            file = self._stack.enter_context(replacing(next(self._paths)))
            self._tar = self._stack.enter_context(tarfile.open(fileobj=file, mode="w"))
            self._written = 0
        self._written += 1
        return self._tar

    def __enter__(self) -> _Tars:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def _as_it_is(path: str, data: bytes) -> tuple[str, bytes]:
    if "#" not in path and suffix_of(path) in IMAGE_SUFFIXES:
        return suffix_of(path), data
    try:
        with Image.open(io.BytesIO(data)) as image:
            return f".{image.format}".lower().replace("jpeg", "jpg"), data
    except OSError:
        return ".img", data


def _jpeg(path: str, data: bytes) -> tuple[str, bytes]:
    from jaxphoton.image.decode import decode

    if data.startswith(b"\xff\xd8\xff"):
        return ".jpg", data
    # The run has accepted it, with options that are not known here.
    picture = decode(data, max_pixels=1 << 40, allow_truncated=True, name=path).picture
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return ".jpg", buffer.getvalue()
