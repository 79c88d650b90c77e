"""The outline that `segment` answers, as commands and numbers that a page can draw."""

from __future__ import annotations

import re
from typing import Any

from jaxphoton.requests.skill import ARITY

_PART = re.compile(r"[\s,]*(?:([A-Za-z])|([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))")
_MOST = 20_000  # numbers of a path
_FARTHEST = 100.0  # from the box, in its sides
_ARC = 7


def outline(path: Any) -> list[list[str | float]] | None:
    """The commands of an SVG path, each with its numbers: [["M", 0, 0.5], ["L", 1, 1], ["Z"]].

    The path comes out of a model, or of whatever wrote the journal: all that is let through are the commands of SVG and
    finite numbers, up to the first fault, as browsers do it. None for a path that draws nothing.
    """
    commands: list[list[str | float]] = []
    command, numbers, total, place = "", list[float](), 0, 0
    text = path if isinstance(path, str) else ""
    while total < _MOST and (found := _PART.match(text, place)):
        place = found.end()
        if found[1]:
            if numbers or found[1] not in ARITY or (not commands and found[1] not in "Mm"):
                break
            command = found[1]
            if not ARITY[command]:
                commands.append([command])
            continue
        if not command or not ARITY[command]:
            break
        numbers.append(float(found[2]))
        total += 1
        if len(numbers) == ARITY[command]:
            if not _drawable(numbers):
                break
            commands.append([command, *(round(number, 4) for number in numbers)])
            numbers = []
            # What follows the place to begin at, without a command of its own, are lines.
            command = {"M": "L", "m": "l"}.get(command, command)
    draws = any(name not in ("M", "m", "Z", "z") for name, *_ in commands)
    return commands if draws else None


def _drawable(numbers: list[float]) -> bool:
    if len(numbers) == _ARC and not {numbers[3], numbers[4]} <= {0, 1}:
        return False
    limits = [360 if len(numbers) == _ARC and place == 2 else _FARTHEST for place in range(len(numbers))]
    return all(abs(number) <= limit for number, limit in zip(numbers, limits, strict=True))
