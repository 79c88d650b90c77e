"""Fields of settings: what each may hold, and the check of all at once.

A dataclass declares its fields with `whole`, `real`, `flag`, `choice` and `part`, and calls `check_fields` when it is
made, so settings of a wrong kind exist nowhere, whether they come from a file or from a caller.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from jaxphoton.messages import quoted

FITS = "fits"
MOST = 2**31 - 1  # of an integer where nothing else bounds it


class ConfigError(ValueError):
    """Model settings that cannot be read or do not fit together."""


class OtherFamily(ConfigError):
    """Settings of a model that may be whole, and of a kind that is not run here."""


@dataclass(frozen=True, slots=True)
class Fits:
    """Whether a value fits a field, and in words what does."""

    test: Callable[[Any], bool]
    allowed: str


def whole(default: int | None, low: int, high: int) -> Any:
    """A dataclass field of integers from `low` to `high`; None is one too if it is the default."""
    also = " or None" if default is None else ""
    return _field(
        default, Fits(lambda v: v is default or is_whole(v, low, high), f"an integer from {low} to {high}{also}")
    )


def real(default: float | None, low: float, high: float) -> Any:
    """A dataclass field of numbers from `low` to `high`; not NaN, not a bool; None if it is the default."""
    also = " or None" if default is None else ""
    allowed = f"a number from {low:g} to {high:g}{also}"
    return _field(default, Fits(lambda v: v is default or _is(v, Real) and low <= v <= high, allowed))


def flag(default: bool) -> Any:
    return _field(default, Fits(lambda v: isinstance(v, bool), "true or false"))


def choice(default: str, *others: str) -> Any:
    names = (default, *others)
    return _field(default, Fits(lambda v: isinstance(v, str) and v in names, " or ".join(map(repr, names))))


def fitting(default: Any, test: Callable[[Any], bool], allowed: str) -> Any:
    """A dataclass field of what passes `test`, in words `allowed`."""
    return _field(default, Fits(test, allowed))


def ascending(default: tuple[int, ...], low: int) -> Any:
    """A dataclass field of ascending integers, at least one, from `low` on."""
    return _field(default, Fits(lambda v: _ascend(v, low), f"ascending integers, at least one, from {low} on"))


def part(kind: type) -> Any:
    """A dataclass field of settings of their own, or None."""
    return _field(None, Fits(lambda v: v is None or isinstance(v, kind), "an object or null"))


def is_whole(value: Any, low: int, high: int) -> bool:
    return _is(value, Integral) and low <= value <= high


def _ascend(value: Any, low: int) -> bool:
    whole = isinstance(value, tuple) and all(is_whole(each, low, MOST) for each in value)
    return whole and len(value) > 0 and list(value) == sorted(set(value))


def check_fields(settings: Any, where: str) -> None:
    """Raises ConfigError with the name (behind `where`), the value and what is allowed, for the first that misfits."""
    for one in dataclasses.fields(settings):
        value, fits = getattr(settings, one.name), one.metadata.get(FITS)
        if fits is not None and not fits.test(value):
            raise ConfigError(f"{where}.{one.name} must be {fits.allowed}, not {quoted(value)}")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _field(default: Any, fits: Fits) -> Any:
    return field(default=default, metadata={FITS: fits})


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
