"""What `Moondream` hands out."""

from __future__ import annotations

import queue
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.engine.request import ImageInput
from jaxphoton.skills.base import Generation, Token
from jaxphoton.skills.grammar import FinishReason


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


class BatchItem(NamedTuple):
    """One image of a batch: `result`, or the `error` that kept it from one."""

    key: Hashable
    result: Result | None
    error: Exception | None


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A decoded and cropped image; asking about it again finds its encoding in the engine's prefix cache.

    Attributes:
      image: crops and digest.
      size: (height, width) of the picture in pixels.
      notes: what was done to it on the way (rotated, blended, ...).
      vision: the crop settings it was made for.
    """

    image: ImageInput = field(repr=False)  # a page of pixels
    size: tuple[int, int]
    notes: tuple[str, ...]
    vision: Any


class TokenStream:
    """Carries tokens from the engine's thread to whoever reads them; never blocks the engine."""

    def __init__(self):
        self._queue: queue.SimpleQueue[tuple[Token, FinishReason | None] | None] = queue.SimpleQueue()

    def put(self, token: Token, finish: FinishReason | None) -> None:
        self._queue.put((token, finish))

    def end(self, _: Any = None) -> None:
        """No more will come."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[tuple[Token, FinishReason | None]]:
        return iter(self._queue.get, None)
