"""Results as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def readable(results: tuple[Mapping[str, Any], ...]) -> str:
    """One line for the results of an image."""
    return " | ".join(_one(result) for result in results).replace("\n", " ")


def _one(result: Mapping[str, Any]) -> str:
    if "objects" in result:
        return _found(_box(box) for box in result["objects"])
    if "path" in result:
        box = result.get("bbox")
        return f"an outline in {_box(box)}" if box else result.get("parse_error", "no outline")
    if "points" in result:
        return _found(f"({point['x']:.2f}, {point['y']:.2f})" for point in result["points"])
    return result.get("caption", result.get("answer", ""))


def _box(box: Mapping[str, float]) -> str:
    return f"({box['x_min']:.2f}, {box['y_min']:.2f}) to ({box['x_max']:.2f}, {box['y_max']:.2f})"


def _found(places) -> str:
    """E.g. `1 found: (0.10, 0.20)`."""
    found = list(places)
    return f"{len(found)} found" + (": " + "; ".join(found) if found else "")
