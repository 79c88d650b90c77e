"""How the text of an answer is read: where it ends before the model ends it, and whether its tokens are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.messages import quoted
from jaxphoton.requests.tokens import Event, Reader, Token

MOST_STOPS = 4
KEYS = ("stop", "logprobs")


class Spelling(Protocol):
    """What of a tokenizer says how an id is spelled."""

    def bytes_of(self, token_id: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """Attributes:
    stop: texts; the answer ends in front of the first that comes.
    logprobs: whether the tokens are told with their log-probabilities.
    """

    stop: tuple[str, ...] = ()
    logprobs: bool = False

    def __bool__(self) -> bool:
        return bool(self.stop) or self.logprobs

    def cut(self, text: Any) -> Any:
        """A text, or a message with one, up to the first of the stop texts."""
        if isinstance(text, Mapping):
            return {**text, "content": self.cut(text["content"])}
        return text[: _found(text, self.stop)]


def take_reading(settings: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, Reading]:
    """Parts settings into those of sampling and how the answer is read.

    Raises:
      TypeError, ValueError: "stop" or "logprobs" is none; the message says what is allowed.
    """
    if not isinstance(settings, Mapping) or not any(key in settings for key in KEYS):
        return settings, Reading()
    logprobs = settings.get("logprobs")
    if not isinstance(logprobs, (bool, type(None))):
        raise TypeError(f"setting logprobs must be true or false, got {quoted(logprobs)}")
    rest = {key: value for key, value in settings.items() if key not in KEYS}
    return rest, Reading(_stops(settings.get("stop")), bool(logprobs))


def _stops(stop: Any) -> tuple[str, ...]:
    texts = () if stop is None else (stop,) if isinstance(stop, str) else stop
    fault = f"setting stop must be a text or a list of up to {MOST_STOPS} texts, none empty, got {quoted(stop)}"
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise TypeError(fault)
    if len(texts) > MOST_STOPS or not all(texts):
        raise ValueError(fault)
    return tuple(texts)


class AnswerReader:
    """Reads an answer for a `Reading`: the events of another reader, up to the first stop text; what may be the
    beginning of one is held back. With `logprobs` a piece has "logprobs", those of the tokens since the piece before.

    Attributes:
      count: tokens up to the end of the answer.
      stopped: a stop text has come; what follows is passed over.
      told: the tokens of the answer, where that is asked for: {"token", "logprob", "bytes"} each, without the stop id.
    """

    def __init__(self, reader: Reader, reading: Reading, spelling: Spelling):
        self.count, self.stopped = 0, False
        self.told: list[dict[str, Any]] = []
        self._reader, self._reading, self._spelling = reader, reading, spelling
        self._held = ""
        self._shown = 0  # of `told`

    def push(self, token: Token, finish: FinishReason | None) -> Sequence[Event]:
        if self.stopped:
            return []
        self.count += 1
        if self._reading.logprobs and finish != "stop":
            self.told.append(_told(token, self._spelling))
        return self._events(self._reader.push(token, finish))

    def finish(self) -> Sequence[Event]:
        events = [] if self.stopped else self._events(self._reader.finish())
        rest, self._held = "" if self.stopped else self._held, ""
        return [*events, *self._piece(rest, always=True)]

    def _events(self, events: Iterable[Event]) -> list[Event]:
        shown: list[Event] = []
        for event in events:
            if "chunk" in event:
                shown += self._piece(self._certain(event["chunk"]))
            else:  # the reasoning, of which no token is part of the answer
                self.told.clear()
                shown.append(event)
        return shown

    def _certain(self, piece: str) -> str:
        """What of the text is certain to belong to the answer."""
        text = self._held + piece
        if (end := _found(text, self._reading.stop)) is not None:
            self.stopped = True
        else:
            end = len(text) - _begun(text, self._reading.stop)
        self._held = text[end:]
        return text[:end]

    def _piece(self, text: str, always: bool = False) -> list[Event]:
        """The event of a piece; with `always` also of tokens that have no text, as the last."""
        told = self.told[self._shown :]
        if not text and not (always and told):
            return []
        self._shown = len(self.told)
        return [{"chunk": text, "logprobs": told} if self._reading.logprobs else {"chunk": text}]


def _found(text: str, stops: Iterable[str]) -> int | None:
    """Where the first of some texts begins."""
    return min((start for stop in stops if (start := text.find(stop)) >= 0), default=None)


def _begun(text: str, stops: Iterable[str]) -> int:
    """The length of the longest end of a text with which one of `stops` begins."""
    lengths = ((stop, length) for stop in stops for length in range(1, min(len(stop), len(text) + 1)))
    return max((length for stop, length in lengths if text.endswith(stop[:length])), default=0)


def _told(token: Token, spelling: Spelling) -> dict[str, Any]:
    data = spelling.bytes_of(token.id)
    return {"token": data.decode(errors="replace"), "logprob": token.logprob, "bytes": list(data)}
