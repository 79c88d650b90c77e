"""The line of a `.jsonl`: the same keys with values of the same types for every image of a run.

What reads such files (`datasets`, `pandas`) takes the type of a column from the first lines or the first file, where a
`null` or a list without elements has none. So no value is null: a text that is not there is empty, a number 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxphoton.batch.described import asked_fields
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.options import ExportReport
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.journal.record import Record
from jaxphoton.requests.skill import typed
from jaxphoton.requests.skills import SKILLS, kinds

_END = ("tokens", "finish_reason")
_OWN = ("task", "retries")  # no fields of a line: a column of its own, and of a few lines alone


class LineForm:
    """What is in the lines of one run.

    One answer an image: "key", the fields of the answer, then "error" and "reason", both empty unless the image failed,
    and "warnings", one text. Several: "results" has them all, and each the fields of all tasks, with "task" telling
    which are its own.
    """

    def __init__(self, settings: Mapping[str, Any], records: Iterable[Record] = ()):
        """
        Args:
          settings: `Questions.description`, or a header's settings, which hold it.
          records: whose results have a place in the lines too, should the settings not speak of them.
        """
        described = settings.get("tasks")
        tasks = [task for task in described if isinstance(task, str)] if isinstance(described, list) else []
        captions = settings.get("captions_per_image")
        adapters = settings.get("adapters")
        told = ("adapter",) if isinstance(adapters, list) and len(set(map(str, adapters))) > 1 else ()
        # Task and fields of every answer of an image.
        self._layout: list[tuple[str, tuple[str, ...]]] = []
        for task in tasks:
            kind = task.partition(":")[0]
            times = captions if kind == "caption" and isinstance(captions, int) else 1
            self._layout += [(kind, (*told, *names_of(task), *_END))] * times
        names = dict.fromkeys(name for _, fields in self._layout for name in fields)
        seen: list[tuple[str, tuple[str, ...]]] = []
        for record in records:
            results = [(str(result["task"]), tuple(n for n in result if n not in _OWN)) for result in record.results]
            names |= dict.fromkeys(name for _, fields in results for name in fields)
            seen = max(seen, results, key=len)
        self._several = max(len(self._layout), len(seen)) > 1
        self._layout = self._layout or seen
        # The end of a result stays its end.
        self._names = [*(name for name in names if name not in _END), *(name for name in names if name in _END)]

    def line(self, record: Record) -> dict[str, Any]:
        """The line of one image, without lone surrogates: no reader of JSON takes their escapes."""
        results = record.results
        if record.status == "failed":
            results = tuple({"task": kind, "finish_reason": "error"} for kind, _ in self._layout)
        rows = [{"task": result["task"]} | self._fields(result) for result in results]
        if self._several:
            fields = {"results": rows}
        else:
            fields = rows[0] if rows else self._fields({})
            fields.pop("task", None)
        end = {"error": record.fault, "reason": record.reason, "warnings": "; ".join(record.warnings)}
        return encodable({"key": record.key} | fields | end)

    def text(self, record: Record) -> str:
        """`line` as JSON."""
        return json.dumps(self.line(record), ensure_ascii=False)

    def _fields(self, result: Mapping[str, Any]) -> dict[str, Any]:
        names = dict.fromkeys([*self._names, *(name for name in result if name not in _OWN)])
        values: dict[str, Any] = {}
        for name in names:
            value, kind = result.get(name), kinds().get(name)
            if value is None:
                values[name] = 0 if name == "tokens" else "" if kind is None else kind.nothing
            else:
                values[name] = value if kind is None else typed(value, kind.shape)
        return values


def line_form(journal: JournalReader) -> LineForm:
    """That of a journal's lines."""
    return LineForm(journal.header.settings, journal.records())


def names_of(described: str) -> tuple[str, ...]:
    """The fields that results of a question have in the journal: what was asked, then what was found; `described` as in
    `Question.description`, () for something else."""
    kind, _, about = described.partition(":")
    if kind not in SKILLS:
        return ()
    skill = SKILLS[kind]
    asked = (asked_fields(about) if kind == "caption" else ()) or (skill.asked,)
    # Whether a model reasons unasked, only the model knows.
    left_out = {"reasoning"} if about.endswith(" (no reasoning)") else set()
    names = (*asked, *(each.name for each in skill.fields if each.name not in left_out))
    return tuple(filter(None, names))


def export_jsonl(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """A line for each image, see `LineForm`."""
    line = line_form(journal).line
    with replacing(out) as file:
        for record in journal.records():
            report.failed += record.status == "failed"
            file.write(json_bytes(line(record)) + b"\n")
            report.written += 1


def export_failures(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """A line for each image that failed, see `failure`."""
    with replacing(out) as file:
        for record in journal.records():
            if record.status == "failed":
                file.write(json_bytes(failure(record)) + b"\n")
                report.failed, report.written = report.failed + 1, report.written + 1


def failure(record: Record) -> dict[str, Any]:
    """Key, error, reason and path, which leads to the file whatever its name is."""
    return {"key": record.key, "error": record.fault, "reason": record.reason, "path": record.path}


def encodable(value: Any) -> Any:
    """A value whose texts are UTF-8: an undecodable file name gets escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, (list, tuple)):
        return [encodable(each) for each in value]
    return {name: encodable(each) for name, each in value.items()} if isinstance(value, Mapping) else value


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8; a file name that is none gets escapes that read back, so that the file can be opened."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
