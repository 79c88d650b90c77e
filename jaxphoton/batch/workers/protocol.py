"""What is said between a run and its engine processes: jobs and asks one way, answers, events and results the other."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxphoton.batch.errors import BatchError
from jaxphoton.constraints.protocol import ConstraintError
from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.image.errors import ImageError
from jaxphoton.image.several import SeveralImages
from jaxphoton.processes.assignment import Assignment
from jaxphoton.processes.pipe import Message
from jaxphoton.requests.answer import Answer, Result
from jaxphoton.requests.ask import Ask, Job, checked
from jaxphoton.requests.errors import (
    DeadlineExceeded,
    EngineError,
    ModelClosed,
    NotFinite,
    QueueFull,
    UnknownAdapter,
    UnusableAdapter,
)
from jaxphoton.requests.submitting import OnEvent

CLOSED = "the replicas were closed"
# Errors keep their kind; those of other kinds become RuntimeErrors.
_KINDS: dict[str, Callable[..., Exception]] = {
    kind.__name__: kind
    for kind in (
        *(ImageError, ValueError, TypeError, OSError, ImportError, RuntimeError, NotImplementedError),
        *(EngineError, QueueFull, DeadlineExceeded, ConstraintError, UnknownAdapter, UnusableAdapter, NotFinite),
    )
}


class ReplicaError(BatchError):
    """There is no engine process, or none is left."""


@dataclass(slots=True, eq=False, kw_only=True)
class EngineTask(Assignment):
    """A job or an ask, ready to be sent; a file named by a path is opened by whoever gets it.

    Attributes:
      message: see `job_task` and `ask_task`.
      data: the bytes of its images, one after the other.
      on_event: of an ask.
      fault: what `on_event` has raised.
    """

    message: Message
    data: bytes | None
    on_event: OnEvent | None = None
    fault: Exception | None = field(default=None, repr=False)

    def finish(self, outcome: Any) -> None:
        if isinstance(outcome, ReplicaError) and "ask" in self.message:
            outcome = ask_error(outcome)
        super(EngineTask, self).finish(self.fault or outcome)


def job_task(job: Job) -> EngineTask:
    """The work of answering a job.

    Raises:
      TypeError: the image is neither a path nor bytes, or an argument is nothing for JSON.
    """
    task = _task(job.image, job.name, {"asks": [_ask_fields(ask) for ask in job.asks]})
    task.priority = max(ask.priority for ask in job.asks)
    return task


def ask_task(image: Any, ask: Ask, on_event: OnEvent | None) -> EngineTask:
    """The work of one ask.

    Raises:
      TypeError: as `job_task`.
    """
    task = _task(image, None, {"ask": _ask_fields(checked(ask)), "events": on_event is not None})
    task.deadline, task.priority, task.on_event = ask.deadline, ask.priority, on_event
    return task


def job_of(message: Message) -> Job:
    """The job of a message; its key is its number."""
    asks = tuple(Ask(*fields) for fields in message["asks"])
    return Job(message["number"], image_of(message), asks, message["name"])


def ask_of(message: Message) -> Ask:
    return Ask(*message["ask"])


def image_of(message: Message) -> Any:
    """The image of a message: a path, bytes, None, or SeveralImages of these."""
    if "images" not in message:
        return message["bytes"] if "bytes" in message else message["path"]
    data, images = memoryview(message.get("bytes", b"")), list[str | bytes]()
    for each in message["images"]:  # a path, or how many of the bytes
        if isinstance(each, str):
            images.append(each)
        else:
            images.append(bytes(data[:each]))
            data = data[each:]
    return SeveralImages(tuple(images))


def answer_message(answer: Answer) -> Message:
    """The answer to a job whose key is its number."""
    message = {"number": answer.key, "size": answer.size, "notes": answer.notes}
    if answer.error is not None:
        return message | {"error": error_fields(answer.error)}
    return message | {"results": [result_fields(result) for result in answer.results]}


def outcome_of(message: Message) -> Answer | Result | Exception:
    """What a message says of the job or the ask of its number."""
    if "result" in message:
        return _result(message["result"])
    error = error_of(message["error"]) if "error" in message else None
    if "size" not in message:
        assert error is not None
        return error
    height, width = message["size"]
    results = tuple(_result(fields) for fields in message.get("results", ()))
    return Answer(message["number"], results, error, (height, width), tuple(message["notes"]))


def ask_error(fault: ReplicaError) -> EngineError:
    """The same in the words of whoever submits asks."""
    return ModelClosed() if str(fault) == CLOSED else EngineError(str(fault))


def error_fields(error: Exception) -> list[str]:
    """An exception as JSON."""
    names = [kind.__name__ for kind in type(error).__mro__]
    name = next((name for name in names if name in _KINDS), None)
    if name is None:
        return ["RuntimeError", f"{names[0]}: {error}"]
    return [name, *(error.args if isinstance(error, ImageError) else (str(error),))]


def error_of(fields: Sequence[str]) -> Exception:
    """The reverse of `error_fields`, as far as kinds go."""
    name, *args = fields
    return _KINDS[name](*args)


def result_fields(result: Result) -> Message:
    """A result as JSON."""
    metrics = result.metrics and dataclasses.asdict(result.metrics)
    return {"fields": result, "attributes": vars(result) | {"metrics": metrics}}


def _task(image: Any, name: str | None, asked: Message) -> EngineTask:
    data = path = None
    if isinstance(image, SeveralImages):
        parts = [_path_or_bytes(each) for each in image.images]
        asked = asked | {"images": [part if isinstance(part, str) else len(part) for part in parts]}
        data = b"".join(part for part in parts if isinstance(part, bytes))
    elif image is not None:
        part = _path_or_bytes(image)
        data, path = (None, part) if isinstance(part, str) else (part, None)
    task = EngineTask(message={"name": name, "path": path, **asked}, data=data)
    task.name = name or path or "<bytes>"
    json.dumps(asked)  # raises what JSON has not here, and not later
    return task


def _path_or_bytes(image: Any) -> str | bytes:
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return os.fsdecode(image)
    raise TypeError(f"replicas take images as paths or bytes, not {type(image).__name__}")


def _ask_fields(ask: Ask) -> list[Any]:
    settings: Mapping[str, Any] | None = ask.settings
    return [ask.skill, dict(ask.arguments), settings and dict(settings), ask.deadline, ask.priority, ask.adapter]


def _result(message: Message) -> Result:
    result = Result(message["fields"])
    vars(result).update(message["attributes"])
    result.tokens, result.logprobs = tuple(result.tokens), tuple(result.logprobs)
    # Of a clock that all processes of a machine share.
    result.metrics = result.metrics and RequestMetrics(**message["attributes"]["metrics"])
    return result
