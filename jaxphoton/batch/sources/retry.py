"""How long to wait for an address, and which faults are tried again."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# Too many requests, and what a server says that is overloaded or being restarted.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# Lost connections of the HTTP clients behind fsspec, by name: none of them has to be installed.
_BROKEN = frozenset(
    "ClientConnectionError ClientPayloadError TransportError HTTPClientError ConnectionError IncompleteRead".split()
)
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """With addresses.

    Attributes:
      timeout_s: to read one image. Of a table, a tar or a list: without a byte.
      retries: after the first try, where a server is overloaded or a connection breaks. The waits between them grow
        from half a second, or are what the server asks for, and never more than half a minute.
    """

    timeout_s: float = 30.0
    retries: int = 3


RETRY = RetryPolicy()


class TimedOut(OSError):
    """An address that did not answer in time."""

    def __init__(self, retry: RetryPolicy):
        super().__init__(f"timed out after {retry.timeout_s:g} s")


def retried(read: Callable[[], T], retry: RetryPolicy) -> T:
    """What `read` returns, tried again as `retry` says.

    Raises:
      TimedOut: a try took too long, which is not tried again.
      OSError: what HTTP says, in words; others as they are.
    """
    import tenacity

    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=tenacity.stop_after_attempt(retry.retries + 1),
        wait=_wait,
        sleep=time.sleep,
        reraise=True,
    )
    try:
        return tries(read)
    except TimeoutError as error:
        raise TimedOut(retry) from error
    except Exception as error:
        if (status := _status(error)) is None:
            raise
        many = tries.statistics.get("attempt_number", 1)
        again = f", {many} times" if many > 1 else ""
        raise OSError(f"HTTP {status} {getattr(error, 'message', '') or ''}".rstrip() + again) from error


def is_transient(error: BaseException) -> bool:
    """Whether the same may go well a little later."""
    if isinstance(error, TimeoutError):
        return False
    if (status := _status(error)) is not None:
        return status in _TRANSIENT
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (ConnectionError, EOFError)) or not names.isdisjoint(_BROKEN)


def _status(error: BaseException) -> int | None:
    """Of an HTTP answer, wherever a client keeps it."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            if isinstance(value := getattr(holder, name, None), int) and 100 <= value < 600:
                return value
    return None


def _wait(state: Any) -> float:
    import tenacity

    error = state.outcome.exception()
    asked = _retry_after(getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None))
    grown = (tenacity.wait_exponential(multiplier=0.5) + tenacity.wait_random(0, 0.25))(state)
    return min(max(grown, asked), _LONGEST_WAIT_S)


def _retry_after(headers: Mapping[str, str] | None) -> float:
    """Seconds; 0 where the server does not say."""
    text = (headers or {}).get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
