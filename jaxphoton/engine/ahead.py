"""The image of the request that is next, encoded before its turn: for a CPU.

There the programs that one thread launches run one after another, and those of two threads side by side: encoding
fills the cores that the small programs of prompts and steps leave idle. On a GPU it would only delay the next step.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

from jaxphoton.engine.request import Sequence

T = TypeVar("T")


class EncodeAhead(Generic[T]):
    """Follows the head of the queue, one image at a time, in a thread of its own.

    Args:
      encode: packs a sequence's image and launches its encoding; called in that thread.
    """

    def __init__(self, encode: Callable[[Sequence], T]):
        self._encode = encode
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jaxphoton-encoder")
        self._begun: tuple[Sequence, Future[T]] | None = None

    def follow(self, sequence: Sequence | None) -> None:
        """Begins with the image of `sequence`, the next; what was begun for another is forgotten."""
        if self._begun is not None and self._begun[0] is sequence:
            return
        self._begun = None
        if sequence is not None:
            with suppress(RuntimeError):  # the interpreter is ending, and its threads take nothing more
                self._begun = sequence, self._thread.submit(self._encode, sequence)

    def take(self, sequence: Sequence) -> T | None:
        """What was launched for this sequence; None if nothing was. What `encode` raised is raised here."""
        if self._begun is None or self._begun[0] is not sequence:
            return None
        (_, future), self._begun = self._begun, None
        return future.result()

    def close(self) -> None:
        """Forgets everything; nothing is launched any more."""
        self._begun = None
        self._thread.shutdown(cancel_futures=True)
        del self._encode
