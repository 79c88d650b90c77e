"""Asks that are answered with a text, without white space at its ends: of families whose tokens are ids alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxphoton.prompt.detokenizer import Decoder
from jaxphoton.requests.conversation import PLACE, Messages, Turn, turns_of
from jaxphoton.requests.tokens import Decode, Generation, Prompt, Reader, TextReader


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """Result: {`name`: text}."""

    prompt: Prompt
    name: str
    grammar: str = "text"
    reasoning: bool = False

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        return {self.name: _text(generation, decode)}

    def reader(self, decoder: Decoder) -> Reader | None:
        return TextReader(decoder, strip=True)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The next turn of a conversation. Result: {"message": {"role": "assistant", "content": text}, "finish_reason"}."""

    prompt: Prompt
    grammar: str = "text"
    reasoning: bool = False

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        message = {"role": "assistant", "content": _text(generation, decode)}
        return {"message": message, "finish_reason": generation.finish_reason}

    def reader(self, decoder: Decoder) -> Reader | None:
        return TextReader(decoder, strip=True)


def asked_turns(messages: Messages) -> Sequence[Turn]:
    """The turns of a conversation whose pictures are those of the ask; in the messages there are only their places.

    Raises:
      TypeError, ValueError: as `turns_of`; or a picture among the messages.
    """
    turns = turns_of(messages)
    for number, turn in enumerate(turns):
        if any(picture is not PLACE for picture in turn.pictures):
            raise ValueError(
                f"messages[{number}]: the pictures of an ask are its image, and not in its messages, where "
                '{"type": "image"} is the place of one'
            )
    return turns


def _text(generation: Generation, decode: Decode) -> str:
    return decode([token.id for token in generation.content]).strip()
