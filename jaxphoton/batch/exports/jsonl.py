"""All results, or all failures, as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.options import ExportReport
from jaxphoton.batch.exports.rows import flat
from jaxphoton.batch.reading import JournalReader


def export_jsonl(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """A line for each image, see `flat`."""
    _write(journal, out, report, failures_only=False)


def export_failures(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """A line for each image that failed: key, error, reason and path."""
    _write(journal, out, report, failures_only=True)


def _write(journal: JournalReader, out: Path, report: ExportReport, failures_only: bool) -> None:
    with replacing(out) as file:
        for record in journal.records():
            report.failed += record.status == "failed"
            if failures_only and record.status == "ok":
                continue
            line = flat(record) | ({"path": record.path} if failures_only else {})
            file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
            report.written += 1
