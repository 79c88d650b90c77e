"""Sources and journals for the tests."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jaxphoton.batch.errors import ENTRY_REASONS
from jaxphoton.batch.journal import Journal
from jaxphoton.batch.journal.record import Header, Record
from jaxphoton.batch.sources import Item, Source
from jaxphoton.image.errors import ImageError

HEADER = Header({"task": "caption", "length": "normal"}, model="m1")


def picture(number: int = 0, form: str = "PNG") -> bytes:
    """A small image file, another one for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (number % 256, number // 256 % 256, 40)).save(buffer, form)
    return buffer.getvalue()


def make_folder(root: Path, names: Iterable[str]) -> Path:
    """Images of these names, each with its own bytes."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(number))
    return root


def make_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar with these members, in this order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1234567
            tar.addfile(info, io.BytesIO(data))
    return path


def make_table(path: Path, columns: Mapping[str, list], rows_in_group: int = 1000) -> str:
    """A parquet file."""
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(dict(columns)), path, row_group_size=rows_in_group)
    return str(path)


def read_tar(path: Path) -> dict[str, bytes]:
    """Name -> bytes of every member; a name must not come twice."""
    members = {}
    with tarfile.open(path) as tar:
        for member in tar:
            assert member.name not in members
            file = tar.extractfile(member)
            members[member.name] = file.read() if file else b""
    return members


def keys(source: Source, *args: Any) -> list[str]:
    """The keys of a source, in its order."""
    return [item.key for item in source.items(*args)]


def fault(item: Item) -> ImageError:
    """The error of an item that cannot be read; one there must be."""
    with pytest.raises(ImageError) as caught:
        item.read()
    assert caught.value.reason in ENTRY_REASONS
    return caught.value


def caption(item: Item, text: str | None = None, **fields: Any) -> Record:
    """A record of a caption, by default one that names its key."""
    result = {"task": "caption", "length": "normal", "caption": text or f"a picture: {item.key}", "tokens": 5}
    fields = {"width": 8, "height": 6} | fields
    return Record(item.key, "ok", path=item.path, results=(result | {"finish_reason": "stop"},), **fields)


def make_journal(path: Path, records: Iterable[Record], header: Header = HEADER) -> Path:
    """A journal with these records."""
    with Journal(path, header) as journal:
        for record in records:
            journal.write(record)
    return path


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a `.jsonl`."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]
