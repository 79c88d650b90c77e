"""What can be asked of a SmolVLM2: a caption, a question, the next turn of a conversation. Never imports jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from jaxphoton.messages import quoted
from jaxphoton.models.answers import ChatAnswer, TextAnswer, asked_question, asked_turns, check_plain, form_of
from jaxphoton.models.smolvlm import lengths
from jaxphoton.models.smolvlm.config import ModelConfig
from jaxphoton.models.smolvlm.prompts import Encode, Message, prompt
from jaxphoton.requests.conversation import PLACE
from jaxphoton.requests.skills import only_length
from jaxphoton.requests.tokens import Prompt

# The models answer questions: "normal" is the one that their authors ask for a caption.
CAPTIONS = {
    "short": "Can you describe this image in one sentence?",
    "normal": "Can you describe this image?",
    "long": "Can you describe this image in detail?",
}


class SmolVLMSkills:
    """What one model can be asked; see `jaxphoton.requests.skills.FamilySkills`."""

    def __init__(self, config: ModelConfig, encode: Encode):
        self._config, self._encode = config, encode
        self._forms: dict[str, Callable[..., TextAnswer | ChatAnswer]] = {
            "caption": self._caption,
            "query": self._query,
            "chat": self._chat,
        }

    def form(self, skill: str, arguments: Mapping[str, Any]) -> TextAnswer | ChatAnswer:
        return form_of(self._forms, skill)(**{name: value for name, value in arguments.items() if value is not None})

    def _caption(self, **arguments: Any) -> TextAnswer:
        length = only_length(arguments).get("length", "normal")
        if not isinstance(length, str):
            raise TypeError(f"length must be a string, not {type(length).__name__}")
        if length not in CAPTIONS:
            raise ValueError(f"length must be one of {', '.join(CAPTIONS)}, not {quoted(length)}")
        return TextAnswer(self._prompt([Message("user", (CAPTIONS[length],))]), "caption")

    def _query(self, question: Any = None, reasoning: bool = False, spatial_refs: Any = None) -> TextAnswer:
        question = asked_question(question, reasoning, spatial_refs)
        return TextAnswer(self._prompt([Message("user", (question,))]), "answer")

    def _chat(self, messages: Any, reasoning: bool = False) -> ChatAnswer:
        check_plain(reasoning)
        turns = asked_turns(messages)
        told = [(turn.role, tuple(None if part is PLACE else part for part in turn.parts)) for turn in turns]
        made = self._prompt([Message(role, parts) for role, parts in told])
        nothing = made.image is None and not turns[-1].text.strip()
        return ChatAnswer(replace(made, image=True) if nothing else made)

    def _prompt(self, messages: list[Message]) -> Prompt:
        config = self._config
        made = prompt(config.tokens, self._encode, messages, lengths.front_room(config) - 1)
        self._check_room(made)
        return made

    def _check_room(self, prompt: Prompt) -> None:
        """Refuses several pictures that no context holds, however small they are, before any of them is decoded."""
        count, most = len(prompt.pictures) + bool(prompt.image), lengths.max_context(self._config)
        least, text = lengths.least_length(self._config), 1 + len(prompt.before) + len(prompt.ids)
        if count > 1 and count * least + text >= most:
            raise ValueError(
                f"{count} pictures of at least {least} positions and {text} of text are {count * least + text}; the "
                f"model's context holds {most}, the answer included"
            )
