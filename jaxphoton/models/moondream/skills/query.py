"""Query: a question answered in text, on request after reasoning that is grounded in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.constraints.protocol import MakeConstraint
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.models.moondream.skills.caption import answer_state
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import TEXT_DEFAULTS, Decode, Generation, Token


def reasoning_grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
    """Reasoning up to the answer id, then an answer; the answer id itself opens the answer when it is fed."""
    template = config.templates.get("query", {})
    if "reasoning_prefix" not in template:
        return {}
    reasoning = State(
        suppress=frozenset(template.get("reasoning_suppressed_token_ids", ())),
        stop=frozenset({config.eos_id}),
        moves={config.answer_id: "answer"},
        region=True,
    )
    return {"reasoning": Grammar({"reasoning": reasoning, "answer": answer_state(config)})}


@dataclass(frozen=True, slots=True)
class Query:
    """A question. Result: {"answer": text}, with reasoning also {"reasoning": {"text", "grounding"}}.

    `constraint` restricts the ids beside the grammar.
    """

    name: ClassVar[str] = "query"
    needs_image: ClassVar[bool] = False
    defaults: ClassVar[Settings] = TEXT_DEFAULTS
    tokens_per_object: ClassVar[int] = 0

    prompt: Prompt
    tokenizer: TokenizerConfig
    reasoning: bool = False
    constraint: MakeConstraint | None = None

    @property
    def grammar(self) -> str:
        return "reasoning" if self.reasoning else "text"

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        tokens = generation.content
        if not self.reasoning:
            return {"answer": decode([token.id for token in tokens])}
        split = self.answer_start(tokens)
        answer = decode([token.id for token in tokens[split:]])
        thought = tokens[: split - 1] if split <= len(tokens) else tokens
        return {"reasoning": self._reasoning(thought, decode), "answer": answer}

    def answer_start(self, tokens: Sequence[Token]) -> int:
        """Index of the first answer token; len(tokens) + 1 while the reasoning goes on."""
        ids = [token.id for token in tokens]
        return ids.index(self.tokenizer.answer_id) + 1 if self.tokenizer.answer_id in ids else len(ids) + 1

    def _reasoning(self, tokens: Sequence[Token], decode: Decode) -> dict[str, Any]:
        """Text and grounding; a new span starts at each grounding id and owns the coordinates in it."""
        borders = {self.tokenizer.start_ground_points_id, self.tokenizer.end_ground_id}
        spans: list[list[Token]] = [[]]
        for token in tokens:
            if token.id in borders:
                spans.append([])
            spans[-1].append(token)
        text, grounding = "", []
        for span in spans:
            start = len(text)
            text += decode([token.id for token in span])
            coordinates = [token.value[0] for token in span if token.value is not None]
            # Unpaired coordinates are dropped.
            points = list(zip(coordinates[::2], coordinates[1::2], strict=False))
            if points:
                grounding.append({"start_idx": start, "end_idx": len(text), "points": points})
        return {"text": text, "grounding": grounding}
