"""Detect: boxes of everything that a word names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import REGION_DEFAULTS, Decode, Generation, box


def detect_grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
    """x or end, y, size, and again."""
    coordinate, size = config.coord_id, config.size_id
    x = State(
        allow=frozenset({coordinate, config.eos_id}),
        stop=frozenset({config.eos_id}),
        moves={coordinate: "y"},
        region=True,
    )
    y = State(allow=frozenset({coordinate}), moves={coordinate: "size"}, region=True)
    extent = State(allow=frozenset({size}), moves={size: "x"}, region=True, completes=frozenset({size}))
    return {"detect": Grammar({"x": x, "y": y, "size": extent})}


@dataclass(frozen=True, slots=True)
class Detect:
    """A detection request. Result: {"objects": [{"x_min", "y_min", "x_max", "y_max"}]}, fractions of the picture.

    `clamp` cuts boxes at the picture's border; without it a box may reach over.
    """

    name: ClassVar[str] = "detect"
    needs_image: ClassVar[bool] = True
    defaults: ClassVar[Settings] = REGION_DEFAULTS
    tokens_per_object: ClassVar[int] = 3

    prompt: Prompt
    clamp: bool = False
    grammar: str = "detect"

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        values = [token.value for token in generation.content if token.value is not None]
        # A sequence cut off inside an object leaves one that is not whole: dropped.
        whole = zip(values[::3], values[1::3], values[2::3], strict=False)
        return {"objects": [box(x[0], y[0], size[0], size[1], self.clamp) for x, y, size in whole]}
