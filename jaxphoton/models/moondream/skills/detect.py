"""Detect: boxes of everything that a word names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt, detect_prompt
from jaxphoton.prompt.detokenizer import Decoder
from jaxphoton.requests.tokens import Decode, Generation, Reader

if TYPE_CHECKING:
    from jaxphoton.models.moondream.skills import MoondreamSkills


def box(x: float, y: float, width: float, height: float, clamp: bool) -> dict[str, float]:
    """The corners of a box around (x, y), fractions of the picture; with `clamp` cut at its border."""
    corners = {
        "x_min": x - width / 2,
        "y_min": y - height / 2,
        "x_max": x + width / 2,
        "y_max": y + height / 2,
    }
    return {name: min(1.0, max(0.0, at)) for name, at in corners.items()} if clamp else corners


@dataclass(frozen=True, slots=True)
class Detect:
    """A detection request. Result: {"objects": [{"x_min", "y_min", "x_max", "y_max"}]}, fractions of the picture.

    `clamp` cuts boxes at the picture's border; without it a box may reach over.
    """

    prompt: Prompt
    clamp: bool = False
    grammar: str = "detect"
    reasoning: bool = False

    @staticmethod
    def grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
        """x or end, y, size, and again."""
        coordinate, size = config.coord_id, config.size_id
        x = State(
            allow=frozenset({coordinate, config.eos_id}),
            stop=frozenset({config.eos_id}),
            moves={coordinate: "y"},
            reads=True,
        )
        y = State(allow=frozenset({coordinate}), moves={coordinate: "size"}, reads=True)
        extent = State(allow=frozenset({size}), moves={size: "x"}, reads=True, completes=frozenset({size}))
        return {"detect": Grammar({"x": x, "y": y, "size": extent})}

    @classmethod
    def asked(cls, model: MoondreamSkills, object: str) -> Detect:
        return cls(detect_prompt(model.config, model.encode, object), model.clamp_boxes)

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        values = [token.value for token in generation.content if token.value is not None]
        # A sequence cut off inside an object leaves one that is not whole: dropped.
        whole = zip(values[::3], values[1::3], values[2::3], strict=False)
        return {"objects": [box(x[0], y[0], size[0], size[1], self.clamp) for x, y, size in whole]}

    def reader(self, decoder: Decoder) -> Reader | None:
        return None
