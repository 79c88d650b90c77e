"""What a sample of a tar gets of its record: the bytes of one more member."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

from jaxphoton.batch.exports.options import ExportOptions, ExportReport, merge
from jaxphoton.batch.exports.rows import recaption
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.quality import texts
from jaxphoton.batch.sources.tar import json_object
from jaxphoton.requests.skills import SKILLS

_EMPTY = (None, "", 0, [])


def answers_field(kind: str) -> str:
    """The field of a JSON member that holds the answers of a skill."""
    return SKILLS[kind].table or "re_caption"


def add_member(tar: tarfile.TarFile, name: str, data: bytes, mtime: float = 0) -> None:
    """Puts a file at the end of a tar."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), mtime
    tar.addfile(member, io.BytesIO(data))


def member_of(record: Record | None, old: bytes | None, options: ExportOptions, report: ExportReport) -> bytes | None:
    """What the member should hold, None to leave it as it is. Counts the image in `report`.

    Args:
      old: what it holds already.
    """
    if record is None or record.status == "failed":
        report.failed += record is not None
        return None
    try:
        text = _json(record, old or b"", options) if options.extension == ".json" else _text(record, old, options)
    except ValueError as error:
        report.lose(record, str(error))
        return None
    if text is None:
        report.unchanged += 1
        report.kept += options.extension != ".json" and old is not None and old.strip() != _new(record).encode()
        return None
    report.written += 1
    return text.encode("utf-8", "backslashreplace")


def _text(record: Record, old: bytes | None, options: ExportOptions) -> str | None:
    if not texts(record.results):
        raise ValueError("it has no text; use the extension .json")
    adds = options.existing in ("append", "prepend")
    try:
        before = None if old is None else old.decode("utf-8", "strict" if adds else "replace")
    except UnicodeDecodeError:
        raise ValueError("the text that is there is not UTF-8") from None
    return merge(before, _new(record), options)


def _new(record: Record) -> str:
    return "\n".join(texts(record.results)).strip()


def _json(record: Record, old: bytes, options: ExportOptions) -> str | None:
    """The fields of `recaption` beside those that are there."""
    ours, theirs = _fields(record), json_object(old)
    if options.existing == "skip" and not theirs and old.strip() not in (b"", b"{}"):
        return None  # something else than an object
    new = ours | theirs
    answered = {answers_field(result["task"]) for result in record.results if result["task"] in SKILLS}
    for name, value in ours.items():
        empty = theirs.get(name) in _EMPTY
        # How a sample names itself stays its own.
        replaced = options.existing == "overwrite" and name not in ("key", "url")
        if empty or (replaced and (name in answered or value not in _EMPTY)):
            new[name] = value
    return None if new == theirs else json.dumps(new, ensure_ascii=False)


def _fields(record: Record) -> dict[str, Any]:
    """Every field in every sample, and of one type: `datasets` takes both from the first five. So nothing is null, and
    the warnings are one text; only a list without elements has to stay one."""
    fields = recaption(record) | {"warnings": "; ".join(record.warnings)}
    return {n: (0 if n in ("width", "height") else "") if value is None else value for n, value in fields.items()}
