"""Boxes as one COCO file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.options import ExportReport
from jaxphoton.batch.exports.rows import boxes, detected, labels
from jaxphoton.batch.reading import JournalReader
from jaxphoton.batch.record import Record


def export_coco(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """Images with their keys as file names, boxes in pixels as [x, y, width, height], categories by name from 1.

    Images without boxes are in it, those of unknown size are a problem.

    Raises:
      ExportError: nothing was detected in this journal.
    """
    categories = category_ids(journal)
    with replacing(out) as file:
        file.write(b'{"images": [')
        _write(file, (image for image, _ in _images(journal, report)))
        file.write(b'],\n"annotations": [')
        _write(file, _annotations(journal, categories))
        file.write(b'],\n"categories": [')
        _write(file, ({"id": number, "name": name} for name, number in categories.items()))
        file.write(b"]}\n")


def category_ids(journal: JournalReader) -> dict[str, int]:
    """Object -> 1, 2, ... in sorted order, whatever the order of the journal.

    Raises:
      ExportError: there is none.
    """
    found: set[str] = set()
    for record in journal.records():
        found |= labels(record)
    if not found:
        raise ExportError(f"{journal.path} holds no boxes: this form is for detect")
    return {name: number for number, name in enumerate(sorted(found), 1)}


def _images(journal: JournalReader, report: ExportReport) -> Iterator[tuple[dict[str, Any], Record]]:
    number = 0
    for record in journal.records():
        report.failed += record.status == "failed"
        if not detected(record):
            continue
        if not (record.width and record.height):
            report.lose(record, "the size of the image is not known")
            continue
        number += 1
        report.written += 1
        yield {"id": number, "file_name": record.key, "width": record.width, "height": record.height}, record


def _annotations(journal: JournalReader, categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, record in _images(journal, ExportReport()):
        for label, x_min, y_min, x_max, y_max in boxes(record):
            number += 1
            width, height = (x_max - x_min) * record.width, (y_max - y_min) * record.height
            box = (x_min * record.width, y_min * record.height, width, height)
            yield {
                "id": number,
                "image_id": image["id"],
                "category_id": categories[label],
                "bbox": [round(value, 2) for value in box],
                "area": round(width * height, 2),
                "iscrowd": 0,
            }


def _write(file: IO[bytes], values: Iterable[dict[str, Any]]) -> None:
    for number, value in enumerate(values):
        text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
        file.write((b",\n" if number else b"\n") + text)
