"""Per-request settings, checked at the edge."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxphoton.messages import quoted

MAX_SEED = 2**32 - 1
# Every id is as likely as any other long before; beyond 1e38 its inverse would be 0, and 0 times -inf is NaN.
MAX_TEMPERATURE = 1000
ADAPTER_KEYS = ("adapter", "variant")  # the second is what the first Moondream calls it


@dataclass(frozen=True, slots=True)
class Settings:
    """How to generate; what a model does where nobody says, its family knows (`Family.defaults`).

    Attributes:
      temperature: 0 is greedy.
      top_p: in (0, 1]; ids behind the first that carries the probability mass past it are dropped.
      max_tokens: limit on generated ids, the stop id included.
      max_objects: limit on boxes or points.
      seed: in [0, 2^32); None draws one, which the result carries.
    """

    temperature: float = 0.2
    top_p: float = 0.9
    max_tokens: int = 768
    max_objects: int = 50
    seed: int | None = None

    @classmethod
    def parse(cls, settings: Mapping[str, Any] | None, defaults: Settings) -> Settings:
        """Settings from a user's mapping over a skill's defaults.

        Raises:
          TypeError: a wrong type.
          ValueError: an unknown setting or a value out of range; the message says what is allowed.
        """
        if settings is None:
            return defaults
        if not isinstance(settings, Mapping):
            raise TypeError(f"settings must be a mapping, not {type(settings).__name__}")
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(str(name) for name in settings if name not in known)
        if unknown:
            named = ", ".join(name[:40] for name in unknown[:5]) + ("..." if len(unknown) > 5 else "")
            raise ValueError(f"unknown settings {named}; allowed are {', '.join(known)}")
        given = {name: value for name, value in settings.items() if value is not None}
        return dataclasses.replace(defaults, **given)

    def __post_init__(self):
        # Plain numbers, whatever kind they came as.
        for name, (kind, low, high, allowed) in RANGES.items():
            value = getattr(self, name)
            if value is not None or name != "seed":
                object.__setattr__(self, name, _in_range(name, value, kind, low, high, allowed))


def take_adapter(settings: Any, adapter: Any) -> tuple[Any, str | None]:
    """Parts the adapter that settings name from them, and from one that is named beside them; None for none.

    Raises:
      TypeError: a name that is no text.
      ValueError: one that is empty, or two that differ.
    """
    named = {"adapter": adapter}
    if isinstance(settings, Mapping) and any(key in settings for key in ADAPTER_KEYS):
        named |= {f"setting {key}": settings.get(key) for key in ADAPTER_KEYS}
        settings = {key: value for key, value in settings.items() if key not in ADAPTER_KEYS}
    named = {key: name for key, name in named.items() if name is not None}
    for key, name in named.items():
        if not isinstance(name, str):
            raise TypeError(f"{key} must be the name of an adapter, not {quoted(name)}")
        if not name:
            raise ValueError(f"{key} must be the name of an adapter, and is empty")
    if len({*named.values()}) > 1:
        told = " and ".join(f"{key} {quoted(name)}" for key, name in named.items())
        raise ValueError(f"an answer comes with one adapter, and here are {told}")
    return settings, next(iter(named.values()), None)


# By setting: its kind, the least and the most, and how the range is called.
RANGES = {
    "temperature": (float, 0, MAX_TEMPERATURE, f"a number from 0 to {MAX_TEMPERATURE}"),
    "top_p": (float, 0, 1, "a number above 0 and at most 1"),
    "max_tokens": (int, 1, math.inf, "an integer, 1 or more"),
    "max_objects": (int, 1, math.inf, "an integer, 1 or more"),
    "seed": (int, 0, MAX_SEED, f"an integer from 0 to {MAX_SEED}"),
}


def _in_range(name: str, value: Any, kind: type, low: float, high: float, allowed: str) -> Any:
    fault = f"setting {name} must be {allowed}, got "
    if not _is(value, kind):
        raise TypeError(fault + quoted(value))
    if not low <= value <= high or (name == "top_p" and value == 0):  # NaN is in no range
        raise ValueError(fault + quoted(value))
    return kind(value)


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)


REGION_DEFAULTS = Settings(temperature=0.0, top_p=1.0)
