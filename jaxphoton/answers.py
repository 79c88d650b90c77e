"""Restricted answers: a JSON schema or a list of choices as a constraint, through llguidance (extra `grammar`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from jaxphoton.config import TokenizerConfig
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.skills.constraint import Constraint, MakeConstraint

KEYS = ("schema", "choices")
CHECKED = 16  # restrictions kept: a run asks the same of every image


class AnswerGrammars:
    """Compiles restrictions for one tokenizer.

    Raises:
      ImportError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, config: TokenizerConfig):
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise ImportError("schema and choices need llguidance: pip install 'jaxphoton[grammar]'") from error
        self._vocab_size, self._config = vocab_size, config
        self._checked = lru_cache(CHECKED)(self._check)
        self._tokenizer = LLTokenizer(tokenizer.to_json(), n_vocab=vocab_size, eos_token=config.eos_id)

    def compile(self, restriction: Mapping[str, Any], reasoning: bool) -> MakeConstraint:
        """From {"schema": JSON schema} or {"choices": list of texts}; with `reasoning` the answer alone is restricted.

        Raises:
          TypeError, ValueError: a restriction that cannot be used, with its fault.
        """
        from llguidance import LLMatcher

        grammar = self._checked(*_document(restriction))

        def make() -> Constraint:
            answer = _Matched(LLMatcher(self._tokenizer, grammar), self._vocab_size)
            return _AfterReasoning(answer, self._config.answer_id, self._vocab_size) if reasoning else answer

        return make

    def _check(self, kind: str, document: str) -> str:
        from llguidance import LLMatcher

        if kind == "choices":
            grammar = LLMatcher.grammar_from_lark(document)
        else:
            # One way to write a document: free white space is what a model that has lost its way would never leave.
            grammar = LLMatcher.grammar_from_json_schema(document, overrides={"whitespace_flexible": False})
        fault = LLMatcher.validate_grammar(grammar, self._tokenizer)
        if fault:
            raise ValueError(f"setting {kind} cannot be used: {fault}")
        return grammar


def take_restriction(settings: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """Parts settings into those of sampling and the restriction of the answer (one of KEYS, or nothing).

    Raises:
      ValueError: both are given.
    """
    if not isinstance(settings, Mapping):
        return settings, {}
    restriction = {key: settings[key] for key in KEYS if settings.get(key) is not None}
    if len(restriction) > 1:
        raise ValueError("give schema or choices, not both")
    return {key: value for key, value in settings.items() if key not in KEYS}, restriction


def _document(restriction: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of a restriction and its text, as hashable data."""
    ((kind, value),) = restriction.items()
    if kind == "choices":
        if isinstance(value, str) or not all(isinstance(choice, str) for choice in value):
            raise TypeError(f"setting choices must be a list of texts, got {value!r}")
        if not value or not all(value):
            raise ValueError("setting choices must be a list of one or more texts, none of them empty")
        return kind, "start: " + " | ".join(json.dumps(c, ensure_ascii=False) for c in value)
    if not isinstance(value, Mapping):
        raise TypeError(f"setting schema must be a JSON schema as a mapping, not {type(value).__name__}")
    return kind, json.dumps(value)


class _Matched:
    """A constraint around an llguidance matcher."""

    def __init__(self, matcher: Any, vocab_size: int):
        self._matcher, self._vocab_size = matcher, vocab_size

    def mask(self) -> np.ndarray:
        from llguidance import numpy as guidance

        words = guidance.allocate_token_bitmask(1, self._vocab_size)
        guidance.fill_next_token_bitmask(self._matcher, words, 0)
        self._check()
        return words[0].view(np.uint32)

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise RuntimeError(f"the answer's grammar failed: {self._matcher.get_error()}")


class _AfterReasoning:
    """Leaves the reasoning free and restricts what comes behind the id that opens the answer."""

    def __init__(self, answer: Constraint, answer_id: int, vocab_size: int):
        self._answer, self._answer_id, self._open = answer, answer_id, False
        self._free = np.full(-(-vocab_size // 32), 0xFFFFFFFF, np.uint32)

    def mask(self) -> np.ndarray:
        return self._answer.mask() if self._open else self._free

    def accept(self, token: int) -> None:
        if self._open:
            self._answer.accept(token)
        self._open = self._open or token == self._answer_id
