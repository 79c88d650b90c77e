"""Which tokens may follow, as plain rules: the readable definition that the device tables are built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class State:
    """One state of a grammar.

    Attributes:
      allow: the only ids that may follow; None for the whole vocabulary.
      suppress: ids that may not follow (used where `allow` is None).
      stop: ids that end the sequence.
      moves: id -> the state it leads to; every other id stays here.
      reads: whether a token may carry more than its id here (see `models.protocol.Readout`).
      completes: ids that complete an object.
    """

    allow: frozenset[int] | None = None
    suppress: frozenset[int] = frozenset()
    stop: frozenset[int] = frozenset()
    moves: Mapping[int, str] = field(default_factory=dict)
    reads: bool = False
    completes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Grammar:
    """Named states; generation starts in the first."""

    states: Mapping[str, State]

    def __post_init__(self):
        for name, state in self.states.items():
            unknown = set(state.moves.values()) - set(self.states)
            if unknown:
                raise ValueError(f"state {name!r} leads to unknown states {sorted(unknown)}")
            if state.allow is not None and not state.allow:
                raise ValueError(f"state {name!r} allows nothing")

    @property
    def start(self) -> str:
        return next(iter(self.states))


class Replay:
    """Follows a grammar token by token, counting tokens and objects: the plain replay that tables are tested with."""

    def __init__(self, grammar: Grammar, max_tokens: int, max_objects: int):
        self.grammar = grammar
        self.state = grammar.start
        self.finish: FinishReason | None = None
        self.tokens = 0
        self.objects = 0
        self._max_tokens, self._max_objects = max_tokens, max_objects

    @property
    def rules(self) -> State:
        return self.grammar.states[self.state]

    def allows(self, token: int) -> bool:
        rules = self.rules
        return token in rules.allow if rules.allow is not None else token not in rules.suppress

    def advance(self, token: int) -> FinishReason | None:
        """Takes one token; returns the finish reason if the sequence ends with it. A stop token wins over a limit."""
        if self.finish is not None:
            raise ValueError("the sequence has finished")
        if not self.allows(token):
            raise ValueError(f"token {token} is not allowed in state {self.state!r}")
        rules = self.rules
        self.tokens += 1
        self.objects += token in rules.completes
        if token in rules.stop:
            self.finish = "stop"
        elif self.tokens >= self._max_tokens or (token in rules.completes and self.objects >= self._max_objects):
            self.finish = "length"
        self.state = rules.moves.get(token, self.state)
        return self.finish
