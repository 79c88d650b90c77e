"""All results, or all failures, as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.lines import line_form
from jaxphoton.batch.exports.options import ExportReport
from jaxphoton.batch.exports.rows import json_bytes
from jaxphoton.batch.reading import JournalReader
from jaxphoton.batch.record import Record


def export_jsonl(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """A line for each image, see `LineForm`."""
    _write(journal.records(), out, report, line_form(journal).line)


def export_failures(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """A line for each image that failed, see `failure`."""
    _write((record for record in journal.records() if record.status == "failed"), out, report, failure)


def failure(record: Record) -> dict[str, Any]:
    """Key, error, reason and path, which leads to the file whatever its name is."""
    return {"key": record.key, "error": record.fault, "reason": record.reason, "path": record.path}


def _write(
    records: Iterable[Record], out: Path, report: ExportReport, line: Callable[[Record], dict[str, Any]]
) -> None:
    with replacing(out) as file:
        for record in records:
            report.failed += record.status == "failed"
            file.write(json_bytes(line(record)) + b"\n")
            report.written += 1
