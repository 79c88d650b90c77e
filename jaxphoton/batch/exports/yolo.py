"""Boxes as YOLO label files."""

from __future__ import annotations

from pathlib import Path

from jaxphoton.batch.exports.atomic import write_text
from jaxphoton.batch.exports.coco import category_ids
from jaxphoton.batch.exports.names import relative_path
from jaxphoton.batch.exports.options import ExportReport, fault_of
from jaxphoton.batch.exports.rows import boxes, detected
from jaxphoton.batch.reading import JournalReader
from jaxphoton.batch.sources.base import Seen


def export_yolo(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """`labels/<key>.txt` with "class x y width height" a line (centre and size, 0 to 1), and `classes.txt`.

    An image without boxes has a file without lines. Existing files are replaced.

    Raises:
      ExportError: nothing was detected in this journal.
    """
    seen = Seen()
    classes = {name: number - 1 for name, number in category_ids(journal).items()}
    write_text(out / "classes.txt", "\n".join(name.replace("\n", " ") for name in classes))
    for record in journal.records():
        report.failed += record.status == "failed"
        if not detected(record):
            continue
        target = out / "labels" / relative_path(record.key, ".txt")
        try:
            if seen.clash(str(target), record.key):
                raise ValueError(f"{target} is already that of another image")
            write_text(target, "\n".join(_line(classes[label], *box) for label, *box in boxes(record)))
            report.written += 1
        except (OSError, ValueError) as error:
            report.lose(record, fault_of(error))


def _line(number: int, x_min: float, y_min: float, x_max: float, y_max: float) -> str:
    return f"{number} {(x_min + x_max) / 2:.6f} {(y_min + y_max) / 2:.6f} {x_max - x_min:.6f} {y_max - y_min:.6f}"
