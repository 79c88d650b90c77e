"""Caption: an image described in a short, normal or long text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt, caption_prompt
from jaxphoton.prompt.detokenizer import Decoder
from jaxphoton.requests.skills import only_length
from jaxphoton.requests.tokens import Decode, Generation, Reader, TextReader

if TYPE_CHECKING:
    from jaxphoton.models.moondream.skills import MoondreamSkills


def answer_state(config: TokenizerConfig) -> State:
    """Free text up to the end of sequence."""
    suppressed = config.templates.get("query", {}).get("answer_suppressed_token_ids", ())
    return State(suppress=frozenset(suppressed), stop=frozenset({config.eos_id}))


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption request. Result: {"caption": text}."""

    prompt: Prompt
    grammar: str = "text"
    reasoning: bool = False

    @staticmethod
    def grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
        return {"text": Grammar({"answer": answer_state(config)})}

    @classmethod
    def asked(cls, model: MoondreamSkills, **arguments: Any) -> Caption:
        return cls(caption_prompt(model.config, **only_length(arguments)))

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        return {"caption": decode([token.id for token in generation.content])}

    def reader(self, decoder: Decoder) -> Reader | None:
        return TextReader(decoder)
