"""What can be asked of a JoyCaption: a caption, and a question. Never imports jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxphoton.models.answers import TextAnswer
from jaxphoton.models.joycaption.captions import request
from jaxphoton.models.joycaption.prompts import Encode, SpecialIds, prompt


class JoyCaptionSkills:
    """What one model can be asked; see `jaxphoton.requests.skills.FamilySkills`."""

    def __init__(self, ids: SpecialIds, encode: Encode):
        self._ids, self._encode = ids, encode
        self._forms: dict[str, Callable[..., TextAnswer]] = {"caption": self._caption, "query": self._query}

    def form(self, skill: str, arguments: Mapping[str, Any]) -> TextAnswer:
        if skill not in self._forms:
            raise ValueError(f"this model has no prompt for {skill!r}; it has: {', '.join(self._forms)}")
        return self._forms[skill](**{name: value for name, value in arguments.items() if value is not None})

    def _caption(self, **asked: Any) -> TextAnswer:
        return self._text(request(**asked), "caption")

    def _query(self, question: str, reasoning: bool = False, spatial_refs: Any = None) -> TextAnswer:
        if reasoning:
            raise ValueError("this model does not reason")
        if spatial_refs:
            raise ValueError("this model takes no spatial_refs")
        return self._text(question, "answer")

    def _text(self, text: str, name: str) -> TextAnswer:
        return TextAnswer(prompt(self._ids, self._encode, [text]), name)
