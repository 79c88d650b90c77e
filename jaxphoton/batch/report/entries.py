"""What the page's script reads: JSON values that any journal turns into."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from jaxphoton.batch.quality import FLAGS, text_of
from jaxphoton.batch.report.collect import Collection, Picked, notes
from jaxphoton.batch.report.counting import kind, opening
from jaxphoton.batch.report.outlines import outline
from jaxphoton.batch.report.thumbnails import Thumbnail
from jaxphoton.requests.skill import BOX, BOXES, POINTS, Kind
from jaxphoton.requests.skills import SKILLS, asked_in, kinds

_ROWS = 15  # of the most frequent reasons, notes, objects and openings


def entry(picked: Picked, collection: Collection, picture: Thumbnail) -> dict[str, Any]:
    """One image; the script knows the fields by these names. Of `picture` the bytes are not needed."""
    record = picked.record
    extremes = {"longest": collection.longest, "shortest": collection.shortest}
    return {
        "key": record.key,
        "path": record.path,
        "link": link(record.path),
        "size": [record.width, record.height],
        "status": record.status,
        "reason": record.reason,
        "fault": record.fault,
        "results": [_result(result) for result in record.results],
        "tokens": record.tokens,
        "finish": record.finish_reason,
        "ms": sum(_number(value) or 0 for value in record.ms.values()),
        "notes": notes(record),
        "kinds": [kind(note) for note in notes(record)],
        "flags": [*picked.flags, *(name for name, numbers in extremes.items() if picked.number in numbers)],
        "old": record.org_caption,
        "thumbnail": [picture.width, picture.height] if picture.width else None,
        "missing": picture.fault,
    }


def link(path: str) -> str:
    """An address that opens the image, empty where there is none."""
    if path.startswith(("http://", "https://")):
        return quote(path, safe="/:?&=%#@+,;~!$'()*[]", errors="replace")
    try:
        return "file://" + quote(os.fsencode(path)) if path.startswith("/") and "#" not in path else ""
    except UnicodeEncodeError:
        return ""


def overview(collection: Collection, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Everything on the page that is not about one image."""
    counts, header = collection.counts, collection.header
    width, bins = counts.lengths.histogram()
    return {
        "created": str(header.created),
        "version": str(header.version),
        "model": header.model,
        "settings": [[name, _shown(value)] for name, value in _flat(header.settings)],
        "images": counts.images,
        "failed": counts.failed,
        "tokens": counts.tokens,
        "again": [counts.again, counts.again - counts.looping],
        "damage": collection.damage,
        "notice": collection.notice,
        "reasons": counts.reasons.most_common(_ROWS),
        "notes": counts.notes.most_common(_ROWS),
        "flags": {flag: counts.flags[flag] for flag in FLAGS if counts.flags[flag]},
        "objects": counts.objects.most_common(_ROWS),
        "openings": counts.openings.most_common(_ROWS),
        "lengths": {
            "width": width,
            "bins": bins,
            "texts": sum(bins),
            "quantiles": [counts.lengths.quantile(share) for share in (0.05, 0.5, 0.95)],
        },
        "ms": [[name, total / counts.images] for name, total in counts.ms.items() if _number(total)],
        "stages": [[str(name), share] for name, share in _stages(summary) if share],
        "summary": [[name, _shown(value)] for name, value in _flat(summary) if not name.startswith("stages.")],
    }


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    text = text_of(result)
    boxes, points = _found(result, BOXES, BOX), _found(result, POINTS)
    skill = SKILLS.get(str(result["task"]))
    if text is None and boxes is None and points is None and skill is not None:
        text = skill.shown(result)
    return {
        "task": str(result["task"]),
        "asked": asked_in(result),
        "length": ", ".join(str(result[name]) for name in ("type", "length") if result.get(name)),
        "text": text,
        "opening": None if text is None else opening(text),
        "boxes": boxes,
        "points": points,
        # In fractions of the only box.
        "outline": outline(result.get("path")) if boxes else None,
    }


def _found(result: Mapping[str, Any], *of: Kind) -> list[list[float]] | None:
    """The places of these kinds in a result; None if none were asked for."""
    for name, each in kinds().items():
        if each in of and name in result:
            shape = each.shape[0] if isinstance(each.shape, list) else each.shape
            return _places(result[name] if isinstance(each.shape, list) else [result[name]], tuple(shape))
    return None


def _places(found: Iterable[Any] | None, names: tuple[str, ...]) -> list[list[float]] | None:
    """Coordinates cut at the borders of the picture, without those that are no numbers; None if none were asked for."""
    if found is None:
        return None
    places = []
    for each in found:
        numbers = [_number(each.get(name)) for name in names] if isinstance(each, Mapping) else [None]
        cut = [round(min(1.0, max(0.0, number)), 4) for number in numbers if number is not None]
        if len(cut) == len(names):
            places.append(cut)
    return places


def _number(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None


def _stages(summary: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    stages = summary.get("stages")
    return [(name, _number(share)) for name, share in stages.items()] if isinstance(stages, Mapping) else []


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str | float:
    if isinstance(value, str):
        return value
    number = _number(value)
    return json.dumps(value, ensure_ascii=False, default=str) if number is None else number
