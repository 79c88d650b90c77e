"""Query: a question answered in text, on request after reasoning that is grounded in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxphoton.constraints.grammar import FinishReason, Grammar, State
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt, SpatialRefs, query_prompt, reasons_by_default
from jaxphoton.models.moondream.skills.caption import answer_state
from jaxphoton.prompt.detokenizer import Decoder
from jaxphoton.requests.tokens import Decode, Event, Generation, Reader, TextReader, Token

if TYPE_CHECKING:
    from jaxphoton.models.moondream.skills import MoondreamSkills


@dataclass(frozen=True, slots=True)
class Query:
    """A question. Result: {"answer": text}, with reasoning also {"reasoning": {"text", "grounding"}}."""

    prompt: Prompt
    tokenizer: TokenizerConfig
    reasoning: bool = False

    @staticmethod
    def grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
        """Reasoning up to the answer id, then an answer; the answer id itself opens the answer when it is fed."""
        template = config.templates.get("query", {})
        if "reasoning_prefix" not in template:
            return {}
        reasoning = State(
            suppress=frozenset(template.get("reasoning_suppressed_token_ids", ())),
            stop=frozenset({config.eos_id}),
            moves={config.answer_id: "answer"},
            reads=True,
        )
        return {"reasoning": Grammar({"reasoning": reasoning, "answer": answer_state(config)})}

    @classmethod
    def asked(
        cls,
        model: MoondreamSkills,
        question: str,
        reasoning: bool | None = None,
        spatial_refs: SpatialRefs | None = None,
    ) -> Query:
        reasoning = reasons_by_default(model.config) if reasoning is None else reasoning
        prompt = query_prompt(model.config, model.encode, question, reasoning, spatial_refs)
        return cls(prompt, model.config, reasoning)

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

    def reader(self, decoder: Decoder) -> Reader | None:
        return _ThoughtReader(self, decoder) if self.reasoning else TextReader(decoder)

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


class _ThoughtReader:
    """Reads an answer behind its reasoning: {"reasoning"} as a whole, then the pieces of the answer."""

    def __init__(self, query: Query, decoder: Decoder):
        self._query, self._decoder, self._answer = query, decoder, TextReader(decoder)
        self._thought: list[Token] | None = []

    def push(self, token: Token, finish: FinishReason | None) -> Sequence[Event]:
        if self._thought is None:
            return self._answer.push(token, finish)
        self._thought.append(token)
        if finish is None and self._query.answer_start(self._thought) > len(self._thought):
            return []
        thought, self._thought = Generation(tuple(self._thought), finish or "length"), None
        parsed = self._query.parse(thought, lambda ids: self._decoder.decode(list(ids)))
        return [{"reasoning": parsed["reasoning"]}]

    def finish(self) -> Sequence[Event]:
        return self._answer.finish()
