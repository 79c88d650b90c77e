"""Checks of the options of a run: each takes what was given, and returns what is meant."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from jaxphoton.config.mesh import AXES, mesh_shape
from jaxphoton.requests.adapter_folder import check_name
from jaxphoton.requests.settings import RANGES, Settings

# From a value that was given to the one that is meant; ValueError says what is allowed.
Check = Callable[[Any], Any]


def option(default: Any, check: Check) -> Any:
    return field(default=default, metadata={"check": check})


def number(kind: type, low: float, *, above: bool = False, most: float = math.inf) -> Check:
    limit = f"{'a whole number' if kind is int else 'a number'} {'above' if above else 'of at least'} {low}"
    if most != math.inf:
        limit += f" and at most {most}"

    def check(value: Any) -> Any:
        good = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if not good or not (low < value if above else low <= value) or value == math.inf or value > most:
            raise ValueError(limit)
        try:
            return kind(value)
        except OverflowError:  # an int of hundreds of digits
            raise ValueError(limit) from None

    return check


def one_of(*allowed: Any) -> Check:
    def check(value: Any) -> Any:
        if isinstance(value, bool) or value not in allowed:
            raise ValueError(f"one of {', '.join(map(str, allowed))}")
        return value

    return check


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def path(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError("a path")
    return os.fsdecode(value)


def yes(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def several(check: Check) -> Check:
    """A tuple; a text is none of its letters."""

    def checked(value: Any) -> Any:
        if isinstance(value, (str, bytes, os.PathLike)) or not isinstance(value, (list, tuple)):
            raise ValueError("a list")
        return tuple(check(each) for each in value)

    return checked


def colour(value: Any) -> tuple[int, int, int]:
    if not (isinstance(value, (tuple, list)) and len(value) == 3 and all(map(_is_level, value))):
        raise ValueError("three whole numbers from 0 to 255")
    return tuple(value)  # type: ignore[return-value]


def _is_level(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def shard_of(value: Any) -> tuple[int, int]:
    found = isinstance(value, (tuple, list)) and len(value) == 2 and all(type(each) is int for each in value)
    if not found or not 0 <= value[0] < value[1]:
        raise ValueError("(index, count), the index from 0")
    return value[0], value[1]


def adapters(value: Any) -> tuple[tuple[str, str], ...]:
    """Names and paths, from a mapping or from pairs."""
    pairs = value.items() if isinstance(value, Mapping) else value
    if not isinstance(value, (Mapping, list, tuple)) or not all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
        raise ValueError("paths of adapters by name")
    try:
        found = tuple((check_name(name), path(place)) for name, place in pairs)
    except (TypeError, ValueError) as error:
        raise ValueError(f"paths of adapters by name ({error})") from None
    if len({name for name, _ in found}) < len(found):
        raise ValueError("paths of adapters by name, each name once")
    return found


def mesh(value: Any) -> str:
    if isinstance(value, str):
        try:
            mesh_shape(value)
            return value
        except ValueError:
            pass
    raise ValueError(f'a text such as "model=2,expert=2", with the axes {", ".join(AXES)}')


def setting(name: str) -> Check:
    def check(value: Any) -> Any:
        try:
            return getattr(Settings.parse({name: value}, Settings()), name)
        except (TypeError, ValueError):
            raise ValueError(RANGES[name][-1]) from None

    return check
