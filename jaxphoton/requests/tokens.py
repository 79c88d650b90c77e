"""The common form of all skills: prompt, grammar, and how to read what was generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.requests.settings import Settings

Decode = Callable[[Sequence[int]], str]

TEXT_DEFAULTS = Settings()
REGION_DEFAULTS = Settings(temperature=0.0, top_p=1.0)


@dataclass(frozen=True, slots=True)
class Token:
    """One generated id.

    Attributes:
      id: vocabulary id.
      bins: what the region heads chose: (coordinate,) or (width, height); None for text.
      value: the values of those bins, in [0, 1]; fed back instead of the id's embedding.
      logprob: log-probability at temperature 1 among the ids the grammar allowed, plus that of the bins.
    """

    id: int
    bins: tuple[int, ...] | None = None
    value: tuple[float, ...] | None = None
    logprob: float = 0.0


@dataclass(frozen=True, slots=True)
class Generation:
    """Everything one request generated; a stop id is the last token."""

    tokens: tuple[Token, ...]
    finish_reason: FinishReason

    @property
    def content(self) -> tuple[Token, ...]:
        """The tokens without the stop id."""
        return self.tokens[:-1] if self.finish_reason == "stop" else self.tokens


class Skill(Protocol):
    """One request's skill.

    Attributes:
      name: of the skill.
      grammar: name of its grammar in `registry.grammars`.
      needs_image: whether it is refused without one.
      defaults: settings that the user did not give.
      tokens_per_object: ids that one object costs; 0 for text.
      prompt: ids after BOS and the image.
    """

    name: ClassVar[str]
    needs_image: ClassVar[bool]
    defaults: ClassVar[Settings]
    tokens_per_object: ClassVar[int]

    @property
    def grammar(self) -> str: ...

    @property
    def prompt(self) -> Prompt: ...

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        """The result in the shape of the `moondream` client."""
        ...


def box(x: float, y: float, width: float, height: float, clamp: bool) -> dict[str, float]:
    """The corners of a box around (x, y), fractions of the picture; with `clamp` cut at its border."""
    corners = {
        "x_min": x - width / 2,
        "y_min": y - height / 2,
        "x_max": x + width / 2,
        "y_max": y + height / 2,
    }
    return {name: min(1.0, max(0.0, at)) for name, at in corners.items()} if clamp else corners
