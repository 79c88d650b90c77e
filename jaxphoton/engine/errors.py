"""What an engine may answer instead of a result. No jax."""

from __future__ import annotations

import traceback

CLOSED = "the model was closed"


class EngineError(RuntimeError):
    """The engine cannot take or finish a request."""


class EngineStartError(EngineError):
    """The engine cannot start: too little memory, no such kernel, a device or a compiler that fails."""


class ModelClosed(EngineError):
    """The model was closed: before the request came, or while it was under way."""

    def __init__(self, message: str = CLOSED):
        super().__init__(message)


class QueueFull(EngineError):
    """As many requests wait as the configuration allows: try again when some have finished."""


class DeadlineExceeded(EngineError):
    """The request's deadline passed before it had ended."""


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
            traceback.clear_frames(each.__traceback__)
            todo += [each.__cause__, each.__context__]
