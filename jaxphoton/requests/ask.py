"""What is asked about an image."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxphoton.requests.settings import take_adapter


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing to ask about an image, or without one.

    Attributes:
      skill: "caption", "query", "detect", "point", "segment" or "chat"; see `requests.skills`.
      arguments: of the skill, such as "length", "question" or "object".
      settings: how to generate, see `Model`.
      deadline: when it is given up, in seconds of `time.monotonic()` (one clock for all processes of a machine); None
        for never.
      priority: a higher one is admitted first, within one the first come.
      adapter: the name of weights to answer with beside the model's own, or None. The settings "adapter" and "variant"
        mean the same, and are not among the settings any more.

    What its skill takes, only the model knows: a wrong argument or setting is the error of whoever submits it.

    Raises:
      TypeError: the deadline is no number, the priority no int, the adapter no text, or the arguments are no mapping.
      ValueError: the deadline is NaN, or of hundreds of digits; the adapter is empty, or two that differ are named.
    """

    skill: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None
    deadline: float | None = None
    priority: int = 0
    adapter: str | None = None

    def __post_init__(self):
        if isinstance(self.deadline, bool) or not isinstance(self.deadline, (int, float, type(None))):
            raise TypeError(f"deadline must be a number of seconds or None, not {type(self.deadline).__name__}")
        try:
            if self.deadline is not None and math.isnan(self.deadline):
                raise ValueError("the deadline is not a number")
        except OverflowError:
            raise ValueError("the deadline is too large a number") from None
        if not isinstance(self.arguments, Mapping):
            raise TypeError(f"the arguments must be a mapping, not {type(self.arguments).__name__}")
        if not isinstance(self.priority, int):
            raise TypeError(f"the priority must be an int, not {type(self.priority).__name__}")
        settings, adapter = take_adapter(self.settings, self.adapter)
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "adapter", adapter)


def checked(ask: Any) -> Ask:
    """
    Raises:
      TypeError: it is none.
    """
    if not isinstance(ask, Ask):
        raise TypeError(f"what is asked must be an Ask, not {type(ask).__name__}")
    return ask


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An image and what to ask about it; its asks share one encoding where the engine shares prefixes.

    Attributes:
      key: comes back with the answer.
      image: whatever `Model` takes, SeveralImages of such for a conversation with places for them, or None where no
        ask needs one.
      asks: at least one.
      name: of the image in errors; by default its path.

    Raises:
      ValueError: there is no ask.
      TypeError: what is among the asks is no Ask.
    """

    key: Hashable
    image: Any
    asks: tuple[Ask, ...]
    name: str | None = None

    def __post_init__(self):
        if isinstance(self.asks, Ask):
            raise TypeError("asks must be a tuple of Ask, even if it is one")
        object.__setattr__(self, "asks", tuple(self.asks))
        if not self.asks:
            raise ValueError("a job needs at least one ask")
        for ask in self.asks:
            if not isinstance(ask, Ask):
                raise TypeError(f"asks must be a tuple of Ask, not of {type(ask).__name__}")
