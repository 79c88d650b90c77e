"""From a restriction to the constraint of one sequence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from jaxphoton.answers.choices import choices_grammar, read_choices
from jaxphoton.config import TokenizerConfig
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.skills.automaton import pack_bits
from jaxphoton.skills.constraint import Constraint, MakeConstraint

CHECKED = 16  # restrictions kept: a run asks the same of every image
FAULT_LENGTH = 400  # characters of llguidance's messages, which can quote a whole grammar


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
        self._config = config
        self._compiled = lru_cache(CHECKED)(self._compile)
        self._tokenizer = LLTokenizer(_unspeakable(tokenizer), n_vocab=vocab_size, eos_token=config.eos_id)
        # Ids that vanish when an answer is decoded would leave holes in it.
        text = [tokenizer.is_text(index) or index == config.eos_id for index in range(vocab_size)]
        self._text = pack_bits(np.array(text))
        going_on = np.ones(vocab_size, bool)
        going_on[config.eos_id] = False
        self._going_on = pack_bits(going_on)

    def compile(self, restriction: Mapping[str, Any], reasoning: bool) -> MakeConstraint:
        """From {"schema": JSON schema} or {"choices": list of texts}; with `reasoning` the answer alone is restricted.

        Raises:
          TypeError, ValueError: a restriction that cannot be used, with its fault.
        """
        matcher = self._compiled(*_hashable(restriction))

        def make() -> Constraint:
            answer = _Matched(matcher.deep_copy(), self._text)
            return _AfterReasoning(answer, self._config.answer_id, self._going_on) if reasoning else answer

        return make

    def _compile(self, kind: str, value: Any) -> Any:
        from llguidance import LLMatcher

        if kind == "choices":
            grammar = LLMatcher.grammar_from_lark(choices_grammar(value))
        else:
            # One way to write a document: free white space is what a model that has lost its way would never leave.
            grammar = LLMatcher.grammar_from_json_schema(value, overrides={"whitespace_flexible": False})
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(f"setting {kind} cannot be used: {matcher.get_error()[:FAULT_LENGTH]}")
        return matcher


def _unspeakable(tokenizer: Tokenizer) -> str:
    """The tokenizer's JSON, with other names for its special tokens.

    llguidance encodes what a grammar forces, and would take a text such as "<|endoftext|>" for the token.
    """
    data = json.loads(tokenizer.to_json())
    added = [token for token in data.get("added_tokens") or () if not tokenizer.is_text(token["id"])]
    names = {token["content"]: f"\x00special {token['id']}\x00" for token in added}
    for token in added:
        token["content"] = names[token["content"]]
    model = data["model"]
    vocabulary, unknown = model.get("vocab"), model.get("unk_token")
    if unknown in names:
        model["unk_token"] = names[unknown]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): index for piece, index in vocabulary.items()}
    elif vocabulary:
        model["vocab"] = [[names.get(piece, piece), *rest] for piece, *rest in vocabulary]
    return json.dumps(data)


def _hashable(restriction: Mapping[str, Any]) -> tuple[str, Any]:
    ((kind, value),) = restriction.items()
    if kind == "choices":
        return kind, read_choices(value)
    if not isinstance(value, Mapping):
        raise TypeError(f"setting schema must be a JSON schema as a mapping, not {type(value).__name__}")
    return kind, json.dumps(value)


class _Matched:
    """A constraint around an llguidance matcher."""

    def __init__(self, matcher: Any, text: np.ndarray):
        self._matcher, self._text = matcher, text

    def mask(self) -> np.ndarray:
        from llguidance import numpy as guidance

        words = np.zeros((1, len(self._text)), np.int32)
        guidance.fill_next_token_bitmask(self._matcher, words, 0)
        self._check()
        allowed = words[0].view(np.uint32) & self._text
        if not allowed.any():
            raise RuntimeError("the answer's grammar allows nothing here: it cannot be met with this tokenizer")
        return allowed

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise RuntimeError(f"the answer's grammar failed: {self._matcher.get_error()[:FAULT_LENGTH]}")


class _AfterReasoning:
    """Leaves the reasoning free and restricts what comes behind the id that opens the answer.

    The reasoning may not end the sequence: there would be no answer.
    """

    def __init__(self, answer: Constraint, answer_id: int, going_on: np.ndarray):
        self._answer, self._answer_id, self._going_on, self._open = answer, answer_id, going_on, False

    def mask(self) -> np.ndarray:
        return self._answer.mask() if self._open else self._going_on

    def accept(self, token: int) -> None:
        if self._open:
            self._answer.accept(token)
        self._open = self._open or token == self._answer_id
