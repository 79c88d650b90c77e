"""Caption: an image described in a short, normal or long text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import TEXT_DEFAULTS, Decode, Generation


def answer_state(config: TokenizerConfig) -> State:
    """Free text up to the end of sequence."""
    suppressed = config.templates.get("query", {}).get("answer_suppressed_token_ids", ())
    return State(suppress=frozenset(suppressed), stop=frozenset({config.eos_id}))


def text_grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
    return {"text": Grammar({"answer": answer_state(config)})}


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption request. Result: {"caption": text}."""

    name: ClassVar[str] = "caption"
    needs_image: ClassVar[bool] = True
    defaults: ClassVar[Settings] = TEXT_DEFAULTS
    tokens_per_object: ClassVar[int] = 0

    prompt: Prompt
    grammar: str = "text"

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        return {"caption": decode([token.id for token in generation.content])}
