"""Which requests are let in: while the server is ready, and no more than may wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from jaxphoton.bodies.faults import BodyError

State = Literal["starting", "ready", "stopping", "failed"]

SHORTEST_S, LONGEST_S = 1, 120  # of Retry-After: OpenAI's client does not try again at all after a longer one
_TOLD = {"starting": "the server is starting", "stopping": "the server is stopping", "failed": "the engine has failed"}
_CODES = {"failed": "engine_failed"}
_REMEMBERED = 64  # endings, from which the rate is taken


class Admission:
    """Counts the requests that a model works for. Of one event loop; `become` may be called from anywhere.

    Args:
      most: requests under way at once; more are refused with 429 before their bodies are read.
      failure: why the model will never answer again.
      clock: seconds.

    Attributes:
      running: requests under way.
    """

    def __init__(
        self, most: int, failure: Callable[[], str | None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ):
        self.running = 0
        self._condition: tuple[State, str | None] = "starting", "compiling"
        self._most, self._failure, self._clock = most, failure, clock
        # Time is counted while somebody is served: an idle hour says nothing of the rate.
        self._busy, self._since = 0.0, clock()
        self._ends: deque[float] = deque([0.0], maxlen=_REMEMBERED + 1)
        self._nobody: asyncio.Event | None = None

    def become(self, state: State, reason: str | None = None) -> None:
        """Lets requests in from now on, or no more."""
        self._condition = state, reason

    def condition(self) -> tuple[State, str | None]:
        """Whether requests are let in, and why not."""
        if self._condition[0] == "ready" and (failure := self._failure()) is not None:
            self.become("failed", failure)
        return self._condition

    @contextmanager
    def entered(self) -> Iterator[None]:
        """
        Raises:
          BodyError: 503, the server is not ready; 429, too many requests are under way.
        """
        self.check()
        if self.running >= self._most:
            raise self.full()
        if not self.running:
            self._since = self._clock()
        self.running += 1
        try:
            yield
        finally:
            self._count()
            self._ends.append(self._busy)
            self.running -= 1
            if not self.running and self._nobody is not None:
                self._nobody.set()

    def check(self) -> None:
        """
        Raises:
          BodyError: 503, the server is not ready.
        """
        state, reason = self.condition()
        if state != "ready":
            told = _TOLD[state] + ("" if reason is None else f": {reason}")
            headers = {"Retry-After": "5"} if state == "starting" else {"X-Should-Retry": "false"}
            raise BodyError(told, code=_CODES.get(state, state), status=503, headers=headers)

    def full(self) -> BodyError:
        """What those are told that find no room."""
        seconds = self.retry_after()
        return BodyError(
            f"{self.running} requests are under way; no more are taken; try again in {seconds} s",
            code="queue_full",
            status=429,
            headers={"Retry-After": str(seconds)},
        )

    def retry_after(self) -> int:
        """Whole seconds in which those under way will have ended, at the rate of the last endings."""
        if self.running:
            self._count()
        # Before the first has ended, the time so far is the least that one takes.
        rate = max(1, len(self._ends) - 1) / max(self._busy - self._ends[0], 1e-3)
        return max(SHORTEST_S, min(LONGEST_S, math.ceil(self.running / rate)))

    def _count(self) -> None:
        now = self._clock()
        self._busy += now - self._since
        self._since = now

    async def nobody(self) -> None:
        """Returns once no request is under way."""
        if self.running:
            self._nobody = asyncio.Event()
            await self._nobody.wait()
