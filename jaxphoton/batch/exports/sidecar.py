"""A text file for each image: beside it, or in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

from jaxphoton.batch.exports.atomic import write_text
from jaxphoton.batch.exports.lines import LineForm, line_form
from jaxphoton.batch.exports.names import relative_path, with_extension
from jaxphoton.batch.exports.options import ExportOptions, ExportReport, fault_of, merge
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.quality import texts
from jaxphoton.batch.sources.base import Seen
from jaxphoton.files import open_regular


def export_sidecar(journal: JournalReader, out: Path | None, options: ExportOptions, report: ExportReport) -> None:
    """Writes captions and answers, one a line, or with `.json` the line of the `.jsonl`.

    Each file is written whole or not at all. Two images whose files would have the same name (`a.jpg`, `a.png`) are a
    problem: the second one is not written.

    Args:
      out: a folder that takes the files by key; None puts each beside its image.
    """
    seen = Seen()
    form = line_form(journal) if options.extension == ".json" else None
    for record in journal.records():
        if record.status == "failed":
            report.failed += 1
            continue
        try:
            target = _target(record, out, options.extension)
            if seen.clash(str(target), record.key):
                raise ValueError(f"{target} is already that of another image")
            _write(target, record, options, form, report)
        except (OSError, ValueError) as error:
            report.lose(record, fault_of(error))


def has_text(target: Path) -> bool:
    """Whether there is a text that `existing="skip"` keeps: anything but white space."""
    try:
        with open_regular(target) as file:
            return any(block.strip() for block in iter(lambda: file.read(1 << 16), b""))
    except OSError:
        return False


def _target(record: Record, out: Path | None, extension: str) -> Path:
    if out is not None:
        return out / relative_path(record.key, extension)
    # Anything but a file of its own: an address, a row of a table, a member of a tar.
    if not os.path.isabs(record.path) or not os.path.isfile(record.path):
        raise ValueError(f"{record.path or 'its image'} is no file here; name a folder for the texts")
    return Path(with_extension(record.path, extension))


def _write(target: Path, record: Record, options: ExportOptions, form: LineForm | None, report: ExportReport) -> None:
    if form is not None:
        new = form.text(record)
    else:
        new = "\n".join(texts(record.results))
        if not texts(record.results):
            raise ValueError("it has no text; use the extension .json")
    # What is kept need not be UTF-8: it is compared, not read.
    if options.existing == "skip" and has_text(target):
        report.unchanged += 1
        report.kept += target.read_bytes().strip() != new.strip().encode("utf-8", "backslashreplace")
        return
    try:
        old = target.read_text(encoding="utf-8")
    except FileNotFoundError:
        old = None
    text = merge(old, new, options)
    if text is None:
        report.unchanged += 1
        return
    write_text(target, text)
    report.written += 1
