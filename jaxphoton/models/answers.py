"""Asks that are answered with a text, without white space at its ends: of families whose tokens are ids alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from jaxphoton.prompt.detokenizer import Decoder
from jaxphoton.requests.conversation import PLACE, Messages, Turn, turns_of
from jaxphoton.requests.tokens import Decode, Generation, Prompt, Reader, TextReader

Form = TypeVar("Form")


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


def form_of(forms: Mapping[str, Form], skill: str) -> Form:
    """What a family has for a skill.

    Raises:
      ValueError: nothing; the message names the skills that there are.
    """
    if skill not in forms:
        raise ValueError(f"this model has no prompt for {skill!r}; it has: {', '.join(forms)}")
    return forms[skill]


def asked_question(question: Any, reasoning: bool, spatial_refs: Any) -> str:
    """The question of a `query`, for a model that neither reasons nor takes places.

    Raises:
      TypeError, ValueError: it is no text, or empty; or it is asked with what there is not.
    """
    if not isinstance(question, str):
        raise TypeError(f"question must be a string, not {type(question).__name__}")
    if not (question := question.strip()):
        raise ValueError("question must not be empty")
    check_plain(reasoning)
    if spatial_refs:
        raise ValueError("this model takes no spatial_refs")
    return question


def check_plain(reasoning: bool) -> None:
    """
    Raises:
      ValueError: it is asked to reason, of a model that does not.
    """
    if reasoning:
        raise ValueError("this model does not reason")


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
