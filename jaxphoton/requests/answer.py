"""What comes back: the result of an ask, and the answer to a job."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.requests.tokens import Generation


class Result(dict):
    """A skill's result in the shape of the `moondream` client.

    Attributes:
      finish_reason: "stop" or "length"; None until a stream has ended.
      seed: what reproduces this result at a temperature above 0.
      tokens: the generated ids, the stop id included; empty until a stream has ended.
      logprob: of all tokens together, at temperature 1.
      metrics: what it took; None until a stream has ended.
    """

    finish_reason: FinishReason | None = None
    seed: int = 0
    tokens: tuple[int, ...] = ()
    logprob: float = 0.0
    metrics: RequestMetrics | None = None

    def close(self, generation: Generation, metrics: RequestMetrics | None = None) -> None:
        """Records how the generation ended."""
        self.metrics = metrics
        self.finish_reason = generation.finish_reason
        self.tokens = tuple(token.id for token in generation.tokens)
        self.logprob = sum(token.logprob for token in generation.tokens)

    def complete(self, result: Result) -> None:
        """Takes over how another result ended, but not what is in it."""
        self.finish_reason, self.seed, self.metrics = result.finish_reason, result.seed, result.metrics
        self.tokens, self.logprob = result.tokens, result.logprob


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What became of a job: all its results, or the error that kept it from one of them.

    Attributes:
      results: in the order of the asks; `Result`s.
      size: (height, width) of the upright picture; (0, 0) if it was not read.
      notes: what was done to the picture on the way.
    """

    key: Hashable
    results: tuple[Any, ...] = ()
    error: Exception | None = None
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()


class BatchItem(NamedTuple):
    """One image of a batch: `result`, or the `error` that kept it from one."""

    key: Hashable
    result: Result | None
    error: Exception | None
