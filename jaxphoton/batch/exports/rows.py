"""A record in the words of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxphoton.batch.journal.record import Record
from jaxphoton.requests.skill import Skill
from jaxphoton.requests.skills import SKILLS


def recaption(record: Record) -> dict[str, Any]:
    """The row of a `.parquet`: the columns of recaptioned datasets (url, re_caption, org_caption, sha256, key) and what
    else a record knows. None where there is nothing; boxes, points and the boxes of outlines from 0 to 1, each with the
    object asked for."""
    captions = [result["caption"] for result in record.results if "caption" in result]
    return {
        "key": record.key,
        "url": record.path,
        "sha256": record.sha256 or None,
        "width": record.width or None,
        "height": record.height or None,
        "org_caption": record.org_caption or None,
        "re_caption": captions[0] if captions else None,
        "re_captions": captions,
        **{table: rows_of(record, skill) for table, skill in tables().items()},
        "output_tokens": record.tokens,
        "finish_reason": record.finish_reason,
        "error": record.fault or None,
        "warnings": list(record.warnings),
    }


def tables() -> dict[str, Skill]:
    """The skills that have a column of their own, by its name."""
    return {skill.table: skill for skill in SKILLS.values() if skill.table is not None}


def rows_of(record: Record, skill: Skill) -> list[dict[str, Any]]:
    """All that a skill has found in an image, each with what was asked."""
    return [row for result in record.results for row in skill.rows(result)]


def objects(record: Record) -> list[dict[str, Any]]:
    """The boxes of all results: "object", "x_min", "y_min", "x_max", "y_max" (0 to 1)."""
    return [row for skill in SKILLS.values() if skill.boxes for row in rows_of(record, skill)]


def boxes(record: Record) -> list[tuple[str, float, float, float, float]]:
    """(object, x_min, y_min, x_max, y_max) cut at the borders of the picture, 0 to 1; those wholly outside left out."""
    cut = []
    for box in objects(record):
        x_min, y_min, x_max, y_max = (min(1.0, max(0.0, box[n])) for n in ("x_min", "y_min", "x_max", "y_max"))
        if x_min < x_max and y_min < y_max:
            cut.append((box["object"], x_min, y_min, x_max, y_max))
    return cut


def detected(record: Record) -> bool:
    """Whether boxes were asked for and the answer came."""
    return any(skill.boxes and skill.fields[0].name in result for skill in SKILLS.values() for result in record.results)


def labels(record: Record) -> set[str]:
    """The objects whose boxes were asked for."""
    boxed = [skill for skill in SKILLS.values() if skill.boxes]
    return {
        result.get(skill.asked, "") for result in record.results for skill in boxed if skill.fields[0].name in result
    }


def asked_objects(settings: Mapping[str, Any]) -> set[str]:
    """The objects that a run with these settings asks boxes of, but for those that each image fills in."""
    boxed = {skill.name for skill in SKILLS.values() if skill.boxes}
    tasks = settings.get("tasks")
    described = (str(task).partition(":") for task in tasks) if isinstance(tasks, list) else ()
    return {about for kind, _, about in described if kind in boxed and not {"{", "}"} & set(about)}
