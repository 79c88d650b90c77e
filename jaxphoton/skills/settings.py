"""Per-request settings, checked at the edge."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_SEED = 2**32 - 1
# Every id is as likely as any other long before; beyond 1e38 its inverse would be 0, and 0 times -inf is NaN.
MAX_TEMPERATURE = 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """How to generate.

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
          NotImplementedError: `adapter`.
        """
        if settings is None:
            return defaults
        if not isinstance(settings, Mapping):
            raise TypeError(f"settings must be a mapping, not {type(settings).__name__}")
        if settings.get("adapter") is not None:
            raise NotImplementedError("adapters are not supported yet")
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(str(name) for name in settings if name not in (*known, "adapter"))
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}; allowed are {', '.join(known)}")
        given = {name: value for name, value in settings.items() if value is not None and name != "adapter"}
        return dataclasses.replace(defaults, **given)

    def __post_init__(self):
        _number("temperature", self.temperature, float)
        _number("top_p", self.top_p, float)
        _number("max_tokens", self.max_tokens, int)
        _number("max_objects", self.max_objects, int)
        _check(
            0 <= self.temperature <= MAX_TEMPERATURE, "temperature", self.temperature, f"from 0 to {MAX_TEMPERATURE}"
        )
        _check(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _check(self.max_tokens >= 1, "max_tokens", self.max_tokens, "1 or more")
        _check(self.max_objects >= 1, "max_objects", self.max_objects, "1 or more")
        if self.seed is not None:
            _number("seed", self.seed, int)
            _check(0 <= self.seed <= MAX_SEED, "seed", self.seed, f"between 0 and {MAX_SEED}")


def _number(name: str, value: Any, kind: type) -> None:
    wanted = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise TypeError(f"setting {name} must be {'an integer' if kind is int else 'a number'}, got {value!r}")


def _check(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ValueError(f"setting {name} must be {allowed}, got {value!r}")
