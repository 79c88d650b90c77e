"""Makes an export of a journal."""

from __future__ import annotations

import os
from pathlib import Path

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.coco import export_coco
from jaxphoton.batch.exports.jsonl import export_failures, export_jsonl
from jaxphoton.batch.exports.options import ExportOptions, ExportReport
from jaxphoton.batch.exports.parquet import export_parquet
from jaxphoton.batch.exports.sidecar import export_sidecar
from jaxphoton.batch.exports.webdataset import export_webdataset
from jaxphoton.batch.exports.yolo import export_yolo
from jaxphoton.batch.reading import JournalReader
from jaxphoton.batch.sources.base import Source

DEFAULT = ExportOptions()
FORMS = ("jsonl", "failures", "sidecar", "parquet", "webdataset", "coco", "yolo")
_BY_SUFFIX = {".jsonl": "jsonl", ".parquet": "parquet", ".tar": "webdataset", ".json": "coco", "": "sidecar"}


def export(
    journal: str | os.PathLike,
    out: str | os.PathLike | None,
    *,
    form: str | None = None,
    options: ExportOptions = DEFAULT,
    source: Source | None = None,
) -> ExportReport:
    """Writes what a journal holds in another form; the journal may still be growing.

    Files are replaced as a whole; only sidecar files and members of tars heed `options.existing`.

    Args:
      out: a file, or the folder for "sidecar", "yolo" and copied tars. None: sidecar files beside the images.
      form: one of FORMS; by default from the suffix of `out`, and without one "sidecar".
      source: for "webdataset": what the run has read.

    Raises:
      ExportError: the form is unknown, cannot be made from this journal, or `out` cannot be written.
      JournalError: the journal cannot be read.
    """
    form = form or form_of(out)
    if form not in FORMS:
        raise ExportError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    if form == "webdataset" and source is None:
        raise ExportError("webdataset needs the source of the images too")
    if out is None and form != "sidecar":
        raise ExportError(f"{form} needs a place to go to")
    target = None if out is None else Path(out)
    with JournalReader(journal) as reader:
        if target is not None:
            _protect(reader, target)
        try:
            report = _write(form, reader, target, options, source)
        except OSError as error:
            raise ExportError(f"{out}: {error.strerror or error}") from error
        for damage in reader.damage:
            report.problem(f"{reader.path} {damage}")
    return report


def form_of(out: str | os.PathLike | None) -> str:
    """The form that the suffix of an output means; one without a suffix, or None, means sidecar files.

    Raises:
      ExportError: it means none.
    """
    suffix = "" if out is None or os.path.isdir(out) else Path(out).suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise ExportError(
            f"{out}: no form has the suffix {suffix}; use {', '.join(filter(None, _BY_SUFFIX))} or a folder"
        )
    return _BY_SUFFIX[suffix]


def _write(
    form: str, journal: JournalReader, out: Path | None, options: ExportOptions, source: Source | None
) -> ExportReport:
    if form == "sidecar":
        return export_sidecar(journal, out, options)
    assert out is not None
    if form == "webdataset":
        assert source is not None
        return export_webdataset(journal, source, out, options)
    makers = {
        "jsonl": export_jsonl,
        "failures": export_failures,
        "parquet": export_parquet,
        "coco": export_coco,
        "yolo": export_yolo,
    }
    return makers[form](journal, out)


def _protect(journal: JournalReader, out: Path) -> None:
    """Keeps an export from taking the place of the journal or of a table or tar that was read."""
    if not out.is_file():
        return
    if out.samefile(journal.path):
        raise ExportError(f"{out} is the journal itself")
    place, last = str(out.resolve()), ""
    for record in journal.records():
        container, mark, _ = record.path.partition("#")
        if mark and container != last and os.path.realpath(last := container) == place:
            raise ExportError(f"{out} is where the images came from: name another place")
