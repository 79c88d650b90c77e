"""What an engine may answer instead of a result. No jax."""

from __future__ import annotations

import traceback
from types import FrameType
from typing import Any

from jaxphoton.messages import first_line


class EngineError(RuntimeError):
    """The engine cannot take or finish a request."""


class EngineStartError(EngineError):
    """The engine cannot start: too little memory, no such kernel, a device or a compiler that fails."""


class ModelClosed(EngineError):
    """The model was closed: before the request came, or while it was under way."""

    def __init__(self):
        super().__init__("the model was closed")


class QueueFull(EngineError):
    """As many requests wait as the configuration allows: try again when some have finished."""


class DeadlineExceeded(EngineError):
    """The request's deadline passed before it had ended."""


class UnknownAdapter(ValueError):
    """A request asks for an adapter that is not there."""


class UnusableAdapter(ValueError):
    """A request asks for an adapter that cannot be read, or does not fit the model."""


class NoAdapterRoom(ValueError):
    """The engine takes no adapter, or none of this rank."""


class NotFinite(ValueError):
    """The model computes no finite logits for a request: its weights, or those of its adapter, have diverged."""


class RequestFault(Exception):
    """What one request brings cannot be packed for the device; `__cause__` says why. Its neighbours are not concerned,
    and nothing has been launched.

    Attributes:
      sequence: the request.
    """

    def __init__(self, sequence: Any):
        super().__init__(sequence)
        self.sequence = sequence


def fault_of(error: BaseException) -> str:
    """What is wrong, in one line: a compiler's message may go on for pages. Surprises are named by their type."""
    name, line = type(error).__name__, first_line(error)
    return line if line == name or isinstance(error, (ValueError, RuntimeError, OSError)) else f"{name}: {line}"


def forget_frames(error: BaseException) -> None:
    """Clears the locals of the frames that an error and its causes came through.

    Whoever keeps the error (a future, a log, a notebook's last exception) would otherwise keep alive all that those
    frames had on the device: parameters, a whole pool.
    """
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            for frame, _ in traceback.walk_tb(each.__traceback__):
                _forget(frame)
            todo += [each.__cause__, each.__context__]


def _forget(frame: FrameType | None) -> None:
    """Clears a frame and those that called it, which jax takes out of tracebacks, up to one that still runs."""
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:
            return
        frame = frame.f_back
