"""Grammars as tables: what a decode step masks with, and its NumPy twin on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxphoton.constraints.grammar import Grammar, State

DONE = 0  # The state of a finished row, shared by all grammars.


@dataclass(frozen=True, slots=True)
class TokenAutomaton:
    """All grammars of a family in one set of tables. S states, V vocabulary ids, Z token classes.

    Attributes:
      allowed: uint32 [S, ceil(V / 32)]; bit i of word w is id 32 w + i.
      token_class: uint8 [V]; class 0 is every id that no grammar names.
      next_state: int32 [S, Z]; DONE after a stop id.
      completes: bool [S, Z], the ids that complete an object.
      reads: bool [S], whether tokens may carry more than their ids.
      start: grammar name -> its first state.
    """

    allowed: np.ndarray
    token_class: np.ndarray
    next_state: np.ndarray
    completes: np.ndarray
    reads: np.ndarray
    start: Mapping[str, int]

    def advance(self, state: int, token: int) -> int:
        """The state after `token`: the NumPy twin of the device's table look-up."""
        return int(self.next_state[state, self.token_class[token]])

    def mask(self, state: int) -> np.ndarray:
        """bool [V], the ids allowed in `state`."""
        return unpack_bits(self.allowed[state], len(self.token_class))


def build(grammars: Mapping[str, Grammar], vocab_size: int) -> TokenAutomaton:
    """Compiles grammars into one automaton; state 0 is DONE, in which everything is allowed and nothing moves.

    Raises:
      ValueError: an id outside the vocabulary, or more than 255 ids named.
    """
    index = {(name, state): i + 1 for i, (name, state) in enumerate(_states(grammars))}
    named = sorted({token for grammar in grammars.values() for s in grammar.states.values() for token in _ids(s)})
    if len(named) > 255:
        raise ValueError(f"grammars name {len(named)} ids; at most 255 fit the class table")
    if named and not 0 <= named[0] <= named[-1] < vocab_size:
        raise ValueError(f"grammar ids must lie in [0, {vocab_size}), got {named[0]} to {named[-1]}")
    token_class = np.zeros(vocab_size, np.uint8)
    token_class[named] = np.arange(1, len(named) + 1)
    count, classes = len(index) + 1, len(named) + 1
    allowed = np.ones((count, vocab_size), bool)
    next_state = np.zeros((count, classes), np.int32)
    completes = np.zeros((count, classes), bool)
    reads = np.zeros(count, bool)
    for (name, state_name), row in index.items():
        state = grammars[name].states[state_name]
        allowed[row] = _allowed(state, vocab_size)
        next_state[row] = row
        for token, target in state.moves.items():
            next_state[row, token_class[token]] = index[name, target]
        next_state[row, token_class[list(state.stop)]] = DONE
        completes[row, token_class[list(state.completes)]] = True
        reads[row] = state.reads
    start = {name: index[name, grammar.start] for name, grammar in grammars.items()}
    return TokenAutomaton(pack_bits(allowed), token_class, next_state, completes, reads, start)


def pack_bits(mask: np.ndarray) -> np.ndarray:
    """bool [..., V] -> uint32 [..., ceil(V / 32)]; bit i of word w is entry 32 w + i."""
    padding = [(0, 0)] * (mask.ndim - 1) + [(0, -mask.shape[-1] % 32)]
    octets = np.packbits(np.pad(mask, padding), axis=-1, bitorder="little")
    return octets.view("<u4").astype(np.uint32)


def unpack_bits(words: np.ndarray, length: int) -> np.ndarray:
    """uint32 [..., W] -> bool [..., length], the inverse of `pack_bits`."""
    octets = np.ascontiguousarray(words.astype("<u4")).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little", count=length).astype(bool)


def _states(grammars: Mapping[str, Grammar]) -> list[tuple[str, str]]:
    return [(name, state) for name, grammar in grammars.items() for state in grammar.states]


def _ids(state: State) -> set[int]:
    return set(state.moves) | state.stop | state.completes


def _allowed(state: State, vocab_size: int) -> np.ndarray:
    mask = np.full(vocab_size, state.allow is None)
    mask[list(state.allow or ())] = True
    if state.allow is None:
        mask[list(state.suppress)] = False
    return mask
