"""Point: a point on everything that a word names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import REGION_DEFAULTS, Decode, Generation


def point_grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
    """x or end, y, and again."""
    coordinate = frozenset({config.coord_id})
    x = State(
        allow=coordinate | {config.eos_id},
        stop=frozenset({config.eos_id}),
        moves={config.coord_id: "y"},
        region=True,
    )
    y = State(allow=coordinate, moves={config.coord_id: "x"}, region=True, completes=coordinate)
    return {"point": Grammar({"x": x, "y": y})}


@dataclass(frozen=True, slots=True)
class Point:
    """A pointing request. Result: {"points": [{"x", "y"}]}, fractions of the picture."""

    name: ClassVar[str] = "point"
    needs_image: ClassVar[bool] = True
    defaults: ClassVar[Settings] = REGION_DEFAULTS
    tokens_per_object: ClassVar[int] = 2

    prompt: Prompt
    grammar: str = "point"

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        values = [token.value[0] for token in generation.content if token.value is not None]
        return {"points": [{"x": x, "y": y} for x, y in zip(values[::2], values[1::2], strict=False)]}
