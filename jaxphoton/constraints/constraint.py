"""The constraint of an answer by a schema: a grammar, and what no grammar keeps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from jaxphoton.constraints.automaton import pack_bits
from jaxphoton.constraints.document import MAX_NUMBER, Document
from jaxphoton.constraints.protocol import Constraint, ConstraintError
from jaxphoton.constraints.validator import Validator

_DIGITS = b"0123456789"


class TokenBytes:
    """The bytes of all ids of a tokenizer, and those that need a closer look while JSON is written.

    Attributes:
      pieces: the bytes of each id.
      quotes: by number, the ids with at least as many quotes; up to three.
      exponents: ids with an e behind a digit or at the front.
      no_digits: uint32 [ceil(V / 32)], all but the ids that make a number longer.
    """

    def __init__(self, pieces: list[bytes]):
        self.pieces = pieces
        self.quotes = [_where(piece.count(b'"') >= least for piece in pieces) for least in range(4)]
        self.exponents = _where(_has_exponent(piece) for piece in pieces)
        self.no_digits = pack_bits(np.array([not piece or piece[0] not in b"0123456789." for piece in pieces]))

    def suspects(self, document: Document, free_keys: bool) -> np.ndarray:
        """The ids that may bring a fault, of whatever kind; some twice."""
        inside = document.text is not None
        found = [self.exponents[np.isin(self.exponents, self.quotes[1])] if inside else self.exponents]
        if free_keys:
            # How many quotes it takes to end the next key.
            needed = (1 if document.may_repeat else 3) if inside else 2
            found.append(self.quotes[needed])
        return np.concatenate(found)


class SchemaConstraint:
    """Restricts the ids of one answer.

    Beside the grammar: no key twice in an object, numbers of a bounded length and without exponents, and no end before
    the text is valid.

    Args:
      free_keys: whether keys may repeat at all.
    """

    def __init__(
        self, grammar: Constraint, token_bytes: TokenBytes, eos_id: int, free_keys: bool, validator: Validator
    ):
        self._grammar, self._token_bytes, self._eos_id = grammar, token_bytes, eos_id
        self._free_keys, self._validator = free_keys, validator
        self._document, self._text = Document(), bytearray()

    def mask(self) -> np.ndarray:
        words = self._grammar.mask()
        faults = [index for index in self._suspects(words) if self._fault(index)]
        allowed = _without(words, faults) if faults else words
        if self._document.number >= MAX_NUMBER:
            ended = allowed & self._token_bytes.no_digits
            # More digits may be needed before a number can end: it has to be a multiple, say.
            allowed = ended if ended.any() else allowed
        if _has(allowed, self._eos_id) and (fault := self._validator.fault(bytes(self._text))):
            allowed = _without(allowed, [self._eos_id])
            if not allowed.any():
                raise ConstraintError(f"the answer cannot be made valid against its schema: {fault}")
        if not allowed.any():
            raise ConstraintError("the answer cannot be made valid against its schema: only used keys are left")
        return allowed

    def accept(self, token: int) -> None:
        self._grammar.accept(token)
        self._text += self._token_bytes.pieces[token]
        self._document = self._document.after(self._token_bytes.pieces[token])

    def _suspects(self, words: np.ndarray) -> list[int]:
        every = self._token_bytes.suspects(self._document, self._free_keys)
        return every[(words[every >> 5] >> (every & 31).astype(np.uint32)) & 1 != 0].tolist()

    def _fault(self, index: int) -> bool:
        return self._document.after(self._token_bytes.pieces[index]).fault


def _has_exponent(piece: bytes) -> bool:
    return any(byte in b"eE" and (not at or piece[at - 1] in _DIGITS) for at, byte in enumerate(piece))


def _where(flags: Iterable[bool]) -> np.ndarray:
    return np.flatnonzero(np.fromiter(flags, bool))


def _has(words: np.ndarray, index: int) -> bool:
    return bool(words[index >> 5] >> np.uint32(index & 31) & 1)


def _without(words: np.ndarray, indices: Iterable[int]) -> np.ndarray:
    out = words.copy()
    for index in indices:
        out[index >> 5] &= ~np.uint32(1 << (index & 31))
    return out
