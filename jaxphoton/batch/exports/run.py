"""Makes an export of a journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.coco import export_coco
from jaxphoton.batch.exports.lines import export_failures, export_jsonl
from jaxphoton.batch.exports.names import is_folder, tars_in_folder
from jaxphoton.batch.exports.options import ExportOptions, ExportReport
from jaxphoton.batch.exports.parquet import export_parquet, load_pyarrow
from jaxphoton.batch.exports.sidecar import export_sidecar
from jaxphoton.batch.exports.webdataset import export_webdataset
from jaxphoton.batch.exports.yolo import export_yolo
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.options import FORMS as FORMS_OF_A_RUN
from jaxphoton.batch.sources.base import Source
from jaxphoton.batch.sources.storage import is_remote

DEFAULT = ExportOptions()
FORMS = (FORMS_OF_A_RUN[0], "failures", *FORMS_OF_A_RUN[1:])
_MAKERS = {
    "jsonl": export_jsonl,
    "failures": export_failures,
    "parquet": export_parquet,
    "yolo": export_yolo,
}
_BY_SUFFIX = {".jsonl": "jsonl", ".parquet": "parquet", ".tar": "webdataset", ".json": "coco", "": "sidecar"}


def export(
    journal: str | os.PathLike,
    out: str | os.PathLike | None,
    *,
    form: str | None = None,
    options: ExportOptions = DEFAULT,
    source: Source | None = None,
    shard: tuple[int, int] = (0, 1),
    each_lost: Callable[[str, str, str], None] | None = None,
) -> ExportReport:
    """Writes what a journal holds in another form; the journal may still be growing.

    Files are replaced as a whole; only sidecar files and members of tars heed `options.existing`. Files that
    `atomic.keeping` protects are never replaced.

    Args:
      out: a file, or the folder for "sidecar", "yolo" and copied tars. None: sidecar files beside the images.
      form: one of FORMS; by default from the suffix of `out`, and without one "sidecar".
      source: what the run has read: for "webdataset", and for the ids of "coco" where it can be had.
      shard: for "webdataset": (index, count), the part of the source that the run has read.
      each_lost: called with key, path and fault of each image whose result could not be written.

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
    report = ExportReport(each_lost=each_lost)
    with JournalReader(journal) as reader:
        if out is not None:
            check_out(out, form)
        write_export(reader, out, form, options, report, source, shard)
    return report


def write_export(
    journal: JournalReader,
    out: str | os.PathLike | None,
    form: str,
    options: ExportOptions,
    report: ExportReport,
    source: Source | None,
    shard: tuple[int, int],
) -> None:
    """The same into `report`, where it is known already that the output can be called `out`, and has this form.

    Raises:
      ExportError: it would take the place of what was read, or cannot be written.
    """
    if out is not None and (place := Path(out)).is_file():
        _check_replaced(journal, place)
    try:
        if form == "sidecar":
            export_sidecar(journal, None if out is None else Path(out), options, report)
        elif form == "webdataset":
            assert out is not None and source is not None
            export_webdataset(journal, source, out, options, report, shard)
        else:
            assert out is not None
            if form == "coco":
                export_coco(journal, Path(out), report, source)
            else:
                _MAKERS[form](journal, Path(out), report)
    except OSError as error:
        raise ExportError(f"{out}: {error.strerror or error}") from error
    for damage in journal.damage:
        report.problem(f"{journal.path} {damage}")


def form_of(out: str | os.PathLike | None) -> str:
    """The form that the suffix of an output means; None, a folder ("x/", "x.v2/"), or one without a suffix means
    sidecar files.

    Raises:
      ExportError: it means none.
    """
    suffix = "" if out is None or is_folder(out) else Path(out).suffix.lower()
    if suffix not in _BY_SUFFIX:
        forms = ", ".join(filter(None, _BY_SUFFIX))
        raise ExportError(f"{out}: no form has the suffix {suffix}; use {forms} or a folder ({out}/)")
    return _BY_SUFFIX[suffix]


def in_folder(out: str | os.PathLike, form: str) -> bool:
    """Whether the output is files in a folder `out`, not a file `out`."""
    return form in ("sidecar", "yolo") or (form == "webdataset" and tars_in_folder(out))


def check_out(out: str | os.PathLike, form: str) -> None:
    """Finds out from what there is already whether an output can be called `out`.

    Raises:
      ExportError: it cannot: a folder stands where a file should, or a file where a folder should; or what writes
        the form is not installed.
    """
    if form == "parquet":
        load_pyarrow()
    text = os.fspath(out)
    if not text or "\0" in text:
        raise ExportError(f"{text!r} names no file and no folder")
    if is_remote(text):
        raise ExportError(f"{text}: outputs are files of this machine, not addresses")
    if in_folder(out, form):
        if os.path.lexists(text.rstrip("/") or "/") and not os.path.isdir(out):
            raise ExportError(f"{text} is no folder, and {form} needs one")
    elif is_folder(out):
        raise ExportError(f"{text} is a folder, and {form} needs a file")
    elif os.path.lexists(out) and not os.path.isfile(out) and os.path.exists(out):
        raise ExportError(f"{text} is no regular file")


def _check_replaced(journal: JournalReader, out: Path) -> None:
    """Keeps an export from taking the place of the journal or of a table or tar that was read."""
    if out.samefile(journal.path):
        raise ExportError(f"{out} is the journal itself")
    place, last = str(out.resolve()), ""
    for record in journal.records():
        container, mark, _ = record.path.partition("#")
        if mark and container != last and os.path.realpath(last := container) == place:
            raise ExportError(f"{out} is where the images came from: name another place")
