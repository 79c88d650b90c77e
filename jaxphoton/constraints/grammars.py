"""From a restriction to the constraint of one sequence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from jaxphoton.constraints.automaton import pack_bits
from jaxphoton.constraints.choices import choices_grammar, read_choices
from jaxphoton.constraints.constraint import SchemaConstraint, TokenBytes
from jaxphoton.constraints.finite import without_endless
from jaxphoton.constraints.normal import Normal
from jaxphoton.constraints.protocol import Constraint, ConstraintError, MakeConstraint
from jaxphoton.constraints.schema import SchemaError, schema_text
from jaxphoton.constraints.validator import Validator
from jaxphoton.prompt.tokenizer import Tokenizer

CHECKED = 16  # restrictions kept: a run asks the same of every image
# How a document is written. Free white space is what a model that has lost its way would never leave; without \\u every
# text has one spelling, so that equal keys are equal bytes.
AS_WRITTEN: Any = {"whitespace_flexible": False, "json_allowed_escapes": 'nrbtf\\"'}
NOT_TOLD_APART = (
    "the branches of oneOf are not told apart by a type, a constant or those of a required property; anyOf takes any"
)
FAULT_LENGTH = 400  # characters of llguidance's messages, which can quote a whole grammar


class AnswerGrammars:
    """Compiles restrictions for one tokenizer.

    Args:
      stop_id: ends an answer.
      answer_id: opens the answer behind the reasoning, in a family that reasons.

    Raises:
      ImportError: llguidance or jsonschema is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_id: int, answer_id: int | None = None):
        try:
            import jsonschema  # noqa: F401
            from llguidance import LLTokenizer
        except ImportError as error:
            raise ImportError(
                "schema and choices need llguidance and jsonschema: pip install 'jaxphoton[grammar]'"
            ) from error
        self._stop_id, self._answer_id = stop_id, answer_id
        self._compiled = lru_cache(CHECKED)(self._compile)
        self._tokenizer = LLTokenizer(_unspeakable(tokenizer), n_vocab=vocab_size, eos_token=stop_id)
        # Ids that vanish when an answer is decoded would leave holes in it.
        text = [tokenizer.is_text(index) or index == stop_id for index in range(vocab_size)]
        self._text = pack_bits(np.array(text))
        going_on = np.ones(vocab_size, bool)
        going_on[stop_id] = False
        self._going_on = pack_bits(going_on)

    def compile(self, restriction: Mapping[str, Any], reasoning: bool) -> MakeConstraint:
        """From {"schema": JSON schema} or {"choices": list of texts}; with `reasoning` the answer alone is restricted.

        Raises:
          TypeError, ValueError: a restriction that cannot be used, with its fault.
        """
        begin = self._compiled(*_hashable(restriction))

        def make() -> Constraint:
            answer = begin()
            if not reasoning:
                return answer
            assert self._answer_id is not None
            return _AfterReasoning(answer, self._answer_id, self._going_on)

        return make

    def _compile(self, kind: str, value: Any) -> MakeConstraint:
        from llguidance import LLMatcher

        if kind == "choices":
            matcher = self._matcher(kind, LLMatcher.grammar_from_lark(choices_grammar(value)))
            return lambda: _Matched(matcher.deep_copy(), self._text)
        root = json.loads(value)
        try:
            return self._compile_schema(root)
        except RecursionError:
            raise SchemaError("its references are nested too deep") from None

    def _compile_schema(self, root: Any) -> MakeConstraint:
        normal, validator = Normal(root), Validator(root)
        try:
            matcher = self._schema_matcher(normal.schema)
        except ValueError:
            # If it works open, the error is not the schema's.
            self._schema_matcher(Normal(root, closed=False).schema)
            raise SchemaError(
                "no answer is valid without keys that are not declared; say additionalProperties"
            ) from None
        if normal.one_of:
            # Whether branches exclude one another is seen before they are closed: a branch that says less than its
            # answers show would hold those of the other too.
            self._schema_matcher(Normal(root, closed=False).schema)
        matched = partial(_Matched, text=self._text)
        return lambda: SchemaConstraint(
            matched(matcher.deep_copy()), self._token_bytes, self._stop_id, normal.free_keys, validator
        )

    def _schema_matcher(self, schema: Any) -> Any:
        from llguidance import LLMatcher

        schema = without_endless(schema)
        if schema is False:
            raise SchemaError("no answer can be valid, or none would ever end")
        schema = {} if schema is True else schema
        return self._matcher("schema", LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=AS_WRITTEN))

    def _matcher(self, kind: str, grammar: str) -> Any:
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(verbose_errors=False)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            fault = matcher.get_error()
            if "coerce_one_of" in fault:  # an option of llguidance's
                raise SchemaError(NOT_TOLD_APART)
            raise ValueError(f"setting {kind} cannot be used: {fault[:FAULT_LENGTH]}")
        return matcher

    @cached_property
    def _token_bytes(self) -> TokenBytes:
        return TokenBytes([self._tokenizer.decode_bytes([index]) for index in range(self._tokenizer.vocab_size)])


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
    return kind, read_choices(value) if kind == "choices" else schema_text(value)


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
            raise ConstraintError("the answer's grammar allows nothing here: it cannot be met with this tokenizer")
        return allowed

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            # As a rule a limit of its parser: there is too much that may come next.
            fault = self._matcher.get_error().partition("<non-verbose/>")[0].strip()
            raise ConstraintError(f"what the answer may be cannot be followed: {fault[:FAULT_LENGTH]}")


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
