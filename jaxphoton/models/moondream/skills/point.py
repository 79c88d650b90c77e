"""Point: a point on everything that a word names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt, SpatialRefs, point_prompt
from jaxphoton.prompt.detokenizer import Decoder
from jaxphoton.requests.tokens import Decode, Generation, Reader

if TYPE_CHECKING:
    from jaxphoton.models.moondream.skills import MoondreamSkills


@dataclass(frozen=True, slots=True)
class Point:
    """A pointing request. Result: {"points": [{"x", "y"}]}, fractions of the picture."""

    prompt: Prompt
    grammar: str = "point"
    reasoning: bool = False

    @staticmethod
    def grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
        """x or end, y, and again."""
        coordinate = frozenset({config.coord_id})
        x = State(
            allow=coordinate | {config.eos_id},
            stop=frozenset({config.eos_id}),
            moves={config.coord_id: "y"},
            reads=True,
        )
        y = State(allow=coordinate, moves={config.coord_id: "x"}, reads=True, completes=coordinate)
        return {"point": Grammar({"x": x, "y": y})}

    @classmethod
    def asked(cls, model: MoondreamSkills, object: str, spatial_refs: SpatialRefs | None = None) -> Point:
        return cls(point_prompt(model.config, model.encode, object, spatial_refs))

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        values = [token.value[0] for token in generation.content if token.value is not None]
        return {"points": [{"x": x, "y": y} for x, y in zip(values[::2], values[1::2], strict=False)]}

    def reader(self, decoder: Decoder) -> Reader | None:
        return None
