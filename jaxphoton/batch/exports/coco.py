"""Boxes as one COCO file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.lines import json_bytes
from jaxphoton.batch.exports.options import ExportReport
from jaxphoton.batch.exports.rows import asked_objects, boxes, detected, labels
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.sources.base import Source


def export_coco(journal: JournalReader, out: Path, report: ExportReport, source: Source | None = None) -> None:
    """Images with their keys as file names, boxes in pixels of the upright picture as [x, y, width, height] and as
    polygons, categories by name from 1.

    An image's id is the place of its key among all sorted keys, whatever became of them: it is the same in every run
    over the same images. Images without boxes are in the file, those of unknown size are lost. Memory: all keys.

    Args:
      source: what the run has read. Where it can be listed without reading it (`Source.count`), its keys are ranked,
        so that the ids of a shard are those of the whole; else those of the journal.

    Raises:
      ExportError: nothing was to be detected in this journal.
    """
    categories = category_ids(journal)
    keys = _sorted_keys(journal, source)
    header = journal.header
    info = {"description": "boxes by jaxphoton", "version": header.version, "date_created": header.created}
    with replacing(out) as file:
        file.write(b'{"info": ' + json_bytes(info) + b',\n"licenses": [],\n"images": [')
        _write(file, (image for image, _ in _images(journal, keys, report)))
        file.write(b'],\n"annotations": [')
        _write(file, _annotations(journal, keys, categories))
        file.write(b'],\n"categories": [')
        _write(file, ({"id": n, "name": name, "supercategory": ""} for name, n in categories.items()))
        file.write(b"]}\n")


def category_ids(journal: JournalReader) -> dict[str, int]:
    """Object -> 1, 2, ... in sorted order, whatever the order of the journal and whatever was found.

    Raises:
      ExportError: there is none.
    """
    found = asked_objects(journal.header.settings)
    for record in journal.records():
        found |= labels(record)
    if not found:
        raise ExportError(f"{journal.path} holds no boxes: this form is for detect")
    return {name: number for number, name in enumerate(sorted(found), 1)}


def _sorted_keys(journal: JournalReader, source: Source | None) -> list[str]:
    keys = {record.key for record in journal.records()}
    if source is not None and source.count() is not None:
        # Nothing is wanted, so nothing is read.
        deque(source.items(lambda key: keys.add(key) is not None), maxlen=0)
    return sorted(keys)


def _images(
    journal: JournalReader, keys: Sequence[str], report: ExportReport
) -> Iterator[tuple[dict[str, Any], Record]]:
    for number, key in enumerate(keys, 1):
        record = journal.get(key)
        if record is None:  # an image of another shard, or one still to come
            continue
        report.failed += record.status == "failed"
        if not detected(record):
            continue
        if not (record.width and record.height):
            report.lose(record, "the size of the image is not known")
            continue
        report.written += 1
        yield {"id": number, "file_name": record.key, "width": record.width, "height": record.height}, record


def _annotations(journal: JournalReader, keys: Sequence[str], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, record in _images(journal, keys, ExportReport()):
        for label, x_min, y_min, x_max, y_max in boxes(record):
            number += 1
            left, right = round(x_min * record.width, 2), round(x_max * record.width, 2)
            top, bottom = round(y_min * record.height, 2), round(y_max * record.height, 2)
            width, height = round(right - left, 2), round(bottom - top, 2)
            yield {
                "id": number,
                "image_id": image["id"],
                "category_id": categories[label],
                "bbox": [left, top, width, height],
                "area": round(width * height, 2),
                "iscrowd": 0,
                # The box as a polygon: of an empty list pycocotools makes no mask.
                "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
            }


def _write(file: IO[bytes], values: Iterable[dict[str, Any]]) -> None:
    for number, value in enumerate(values):
        file.write((b",\n" if number else b"\n") + json_bytes(value))
