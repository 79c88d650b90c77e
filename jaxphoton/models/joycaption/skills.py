"""What can be asked of a JoyCaption: a caption, and a question. Never imports jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxphoton.models.joycaption.captions import request
from jaxphoton.models.joycaption.prompts import Encode, SpecialIds, prompt
from jaxphoton.prompt.detokenizer import Decoder
from jaxphoton.requests.tokens import Decode, Generation, Prompt, Reader, TextReader


@dataclass(frozen=True, slots=True)
class Text:
    """An ask that is answered with a text, in the result's field `name`."""

    prompt: Prompt
    name: str
    grammar: str = "text"
    reasoning: bool = False

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        return {self.name: decode([token.id for token in generation.content]).strip()}

    def reader(self, decoder: Decoder) -> Reader | None:
        return TextReader(decoder)


class JoyCaptionSkills:
    """What one model can be asked; see `jaxphoton.requests.skills.FamilySkills`."""

    def __init__(self, ids: SpecialIds, encode: Encode):
        self._ids, self._encode = ids, encode
        self._forms: dict[str, Callable[..., Text]] = {"caption": self._caption, "query": self._query}

    def form(self, skill: str, arguments: Mapping[str, Any]) -> Text:
        if skill not in self._forms:
            raise ValueError(f"this model has no prompt for {skill!r}; it has: {', '.join(self._forms)}")
        return self._forms[skill](**{name: value for name, value in arguments.items() if value is not None})

    def _caption(self, **asked: Any) -> Text:
        return self._text(request(**asked), "caption")

    def _query(self, question: str, reasoning: bool = False, spatial_refs: Any = None) -> Text:
        if reasoning:
            raise ValueError("this model does not reason")
        if spatial_refs:
            raise ValueError("this model takes no spatial_refs")
        return self._text(question, "answer")

    def _text(self, text: str, name: str) -> Text:
        return Text(prompt(self._ids, self._encode, [text]), name)
