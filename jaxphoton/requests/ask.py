"""What is asked about an image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing to ask about an image.

    Attributes:
      task: "caption", "query", "detect", "point" or "segment".
      arguments: of the task, such as "length", "question" or "object".
      settings: how to generate, see `Moondream`.
    """

    task: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An image and what to ask about it; its asks share one encoding where the engine shares prefixes.

    Attributes:
      key: comes back with the answer.
      image: whatever `Moondream` takes.
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
