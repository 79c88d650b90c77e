"""What can be asked of a JoyCaption: a caption, a question, the next turn of a conversation. Never imports jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from jaxphoton.models.answers import ChatAnswer, TextAnswer, asked_question, asked_turns, check_plain, form_of
from jaxphoton.models.joycaption.captions import request
from jaxphoton.models.joycaption.config import SpecialIds
from jaxphoton.models.joycaption.prompts import Encode, conversation, prompt
from jaxphoton.requests.conversation import first_of_user


class JoyCaptionSkills:
    """What one model can be asked; see `jaxphoton.requests.skills.FamilySkills`."""

    def __init__(self, ids: SpecialIds, encode: Encode):
        self._ids, self._encode = ids, encode
        self._forms: dict[str, Callable[..., TextAnswer | ChatAnswer]] = {
            "caption": self._caption,
            "query": self._query,
            "chat": self._chat,
        }

    def form(self, skill: str, arguments: Mapping[str, Any]) -> TextAnswer | ChatAnswer:
        return form_of(self._forms, skill)(**{name: value for name, value in arguments.items() if value is not None})

    def _caption(self, **asked: Any) -> TextAnswer:
        return self._text(request(**asked), "caption")

    def _query(self, question: Any = None, reasoning: bool = False, spatial_refs: Any = None) -> TextAnswer:
        return self._text(asked_question(question, reasoning, spatial_refs), "answer")

    def _chat(self, messages: Any, reasoning: bool = False) -> ChatAnswer:
        """The picture stands at the start of the user's first turn, wherever in it the messages have its place."""
        check_plain(reasoning)
        turns = asked_turns(messages)
        first = first_of_user(turns)
        for number, turn in enumerate(turns):
            if len(turn.pictures) > (number == first):
                raise ValueError(
                    f"messages[{number}]: this model looks at one picture, in the first message of the user, and here "
                    f"{'are more' if number == first else 'is another'}"
                )
        told = conversation(self._ids, self._encode, [(turn.role, turn.text) for turn in turns])
        needed = bool(turns[first].pictures) or not turns[-1].text.strip()
        return ChatAnswer(replace(told, image=needed or None))

    def _text(self, text: str, name: str) -> TextAnswer:
        return TextAnswer(prompt(self._ids, self._encode, [text]), name)
