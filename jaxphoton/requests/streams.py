"""Tokens on their way from the engine's thread to whoever reads them."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.requests.tokens import Token


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
