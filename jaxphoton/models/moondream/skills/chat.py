"""Chat: the next turn of a conversation, written as a row of questions and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxphoton.constraints.grammar import Grammar
from jaxphoton.models.answers import asked_turns
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt, chat_prompt, reasons_by_default
from jaxphoton.models.moondream.skills.query import Query
from jaxphoton.prompt.detokenizer import Decoder
from jaxphoton.requests.conversation import Messages
from jaxphoton.requests.tokens import Decode, Generation, Reader

if TYPE_CHECKING:
    from jaxphoton.models.moondream.skills import MoondreamSkills


@dataclass(frozen=True, slots=True)
class Chat:
    """The last turn of a conversation as a question; it is answered, streamed and restricted like one.

    Result: {"message": {"role": "assistant", "content": text}, "finish_reason"}; after reasoning the message has
    "reasoning", its text, and where it points at places "reasoning_details": {"grounding"}.
    """

    question: Query

    @staticmethod
    def grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
        """Those of a question."""
        return {}

    @classmethod
    def asked(cls, model: MoondreamSkills, messages: Messages, reasoning: bool | None = None) -> Chat:
        """The pictures of a conversation are those of the ask; in the messages there are only their places."""
        turns = asked_turns(messages)
        reasoning = reasons_by_default(model.config) if reasoning is None else reasoning
        return cls(Query(chat_prompt(model.config, model.encode, turns, reasoning), model.config, reasoning))

    @property
    def prompt(self) -> Prompt:
        return self.question.prompt

    @property
    def grammar(self) -> str:
        return self.question.grammar

    @property
    def reasoning(self) -> bool:
        return self.question.reasoning

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        found = self.question.parse(generation, decode)
        message: dict[str, Any] = {"role": "assistant", "content": found["answer"]}
        if self.reasoning:
            message["reasoning"] = found["reasoning"]["text"]
            if found["reasoning"]["grounding"]:
                message["reasoning_details"] = {"grounding": found["reasoning"]["grounding"]}
        return {"message": message, "finish_reason": generation.finish_reason}

    def reader(self, decoder: Decoder) -> Reader | None:
        return self.question.reader(decoder)
