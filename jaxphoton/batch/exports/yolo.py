"""Boxes as YOLO label files."""

from __future__ import annotations

from pathlib import Path

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.coco import category_ids
from jaxphoton.batch.exports.lines import encodable
from jaxphoton.batch.exports.names import relative_path
from jaxphoton.batch.exports.options import ExportReport, fault_of
from jaxphoton.batch.exports.rows import boxes, detected
from jaxphoton.batch.journal.keymap import KeyMap
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.sources.base import Seen


def export_yolo(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """`labels/<key>.txt` with "class x y width height" a line (centre and size, fractions of the upright picture),
    `classes.txt` with a name a line, and `data.yaml` as Ultralytics reads it, for pictures in `images/`.

    An image without boxes has an empty file. Classes are numbered by name from 0. Existing files are replaced.

    Raises:
      ExportError: nothing was to be detected in this journal, or there are labels of other images with other classes,
        which would then have the wrong names.
    """
    seen = Seen()
    classes = {name: number - 1 for name, number in category_ids(journal).items()}
    lines = [" ".join(encodable(name).split()) for name in classes]
    _check_classes(journal, out, lines)
    _write(out / "classes.txt", lines)
    names = (f"  {number}: {_quoted(encodable(name))}" for name, number in classes.items())
    _write(out / "data.yaml", ["train: images", "val: images", "names:", *names])
    for record in journal.records():
        report.failed += record.status == "failed"
        if not detected(record):
            continue
        target = out / "labels" / relative_path(record.key, ".txt")
        try:
            if seen.clash(str(target), record.key):
                raise ValueError(f"{target} is already that of another image")
            _write(target, [_line(classes[label], *box) for label, *box in boxes(record)])
            report.written += 1
        except (OSError, ValueError) as error:
            report.lose(record, fault_of(error))


def _check_classes(journal: JournalReader, out: Path, lines: list[str]) -> None:
    """Numbers mean what `classes.txt` says: it may change only with all labels that are there."""
    try:
        if (out / "classes.txt").read_text(encoding="utf-8").splitlines() == lines:
            return
    except (OSError, UnicodeDecodeError):
        pass
    ours = KeyMap("B")
    for record in journal.records():
        if detected(record):
            ours[str(out / "labels" / relative_path(record.key, ".txt"))] = 1
    if other := next((path for path in (out / "labels").rglob("*.txt") if str(path) not in ours), None):
        raise ExportError(f"{other} has other classes than this run, which would get wrong names: name another folder")


def _line(number: int, x_min: float, y_min: float, x_max: float, y_max: float) -> str:
    return f"{number} {(x_min + x_max) / 2:.6f} {(y_min + y_max) / 2:.6f} {x_max - x_min:.6f} {y_max - y_min:.6f}"


def _quoted(name: str) -> str:
    """A text in YAML. Without quotation marks "no" would be false and "7" a number."""
    escapes = {"\\": "\\\\", '"': '\\"'}
    shown = (escapes.get(sign, sign if sign.isprintable() else f"\\U{ord(sign):08x}") for sign in name)
    return f'"{"".join(shown)}"'


def _write(target: Path, lines: list[str]) -> None:
    with replacing(target) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
