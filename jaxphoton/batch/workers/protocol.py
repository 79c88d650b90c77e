"""Jobs and answers as messages between a run and its engine processes: JSON, and the bytes of a file behind it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping

from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.image.errors import ImageError
from jaxphoton.processes.frames import Message, Readable, pack, read_frame
from jaxphoton.requests.answer import Answer, Result
from jaxphoton.requests.ask import Ask, Job

# Errors keep their kind; those of other kinds become RuntimeErrors.
_KINDS: dict[str, Callable[..., Exception]] = {
    kind.__name__: kind for kind in (ImageError, ValueError, TypeError, OSError, ImportError, RuntimeError)
}


def pack_job(number: int, job: Job) -> tuple[bytes, bytes | None]:
    """The frame and the bytes behind it; a file named by a path is opened by whoever gets the job.

    Raises:
      TypeError: the image is neither a path nor bytes, or an argument is nothing for JSON.
    """
    data = path = None
    if isinstance(job.image, (bytes, bytearray, memoryview)):
        data = bytes(job.image)
    elif isinstance(job.image, (str, os.PathLike)):
        path = os.fsdecode(job.image)
    else:
        raise TypeError(f"replicas take images as paths or bytes, not {type(job.image).__name__}")
    asks = [(ask.skill, dict(ask.arguments), ask.settings and dict(ask.settings)) for ask in job.asks]
    message = {"number": number, "name": job.name, "path": path, "asks": asks}
    message["bytes"] = None if data is None else len(data)
    return pack(message), data


def read_job(stream: Readable) -> Job:
    """The next job; its key is its number.

    Raises:
      EOFError: the other side is gone.
    """
    message = read_frame(stream)
    image = message["path"] if message["bytes"] is None else stream.read(message["bytes"])
    asks = tuple(Ask(skill, arguments, settings) for skill, arguments, settings in message["asks"])
    return Job(message["number"], image, asks, message["name"])


def pack_answer(answer: Answer, stages: Mapping[str, float]) -> bytes:
    """The answer to a job whose key is its number, and the device's seconds by stage so far."""
    message = {"number": answer.key, "size": answer.size, "notes": answer.notes, "stages": stages}
    if answer.error is not None:
        return pack(message | {"error": error_fields(answer.error)})
    return pack(message | {"results": [_result_fields(result) for result in answer.results]})


def unpack_answer(message: Message) -> tuple[int, Answer]:
    """The number of the job, and its answer."""
    height, width = message["size"]
    error = error_of(message["error"]) if "error" in message else None
    results = tuple(_result(fields) for fields in message.get("results", ()))
    answer = Answer(message["number"], results, error, (height, width), tuple(message["notes"]))
    return message["number"], answer


def error_fields(error: Exception) -> list[str]:
    """An exception as JSON."""
    names = [kind.__name__ for kind in type(error).__mro__]
    name = next((name for name in names if name in _KINDS), None)
    if name is None:
        return ["RuntimeError", f"{names[0]}: {error}"]
    return [name, *(error.args if isinstance(error, ImageError) else (str(error),))]


def error_of(fields: list[str]) -> Exception:
    """The reverse of `error_fields`, as far as kinds go."""
    name, *args = fields
    return _KINDS[name](*args)


def _result_fields(result: Result) -> Message:
    return {
        "fields": result,
        "finish_reason": result.finish_reason,
        "seed": result.seed,
        "tokens": result.tokens,
        "logprob": result.logprob,
        "metrics": result.metrics and dataclasses.asdict(result.metrics),
    }


def _result(fields: Message) -> Result:
    result = Result(fields["fields"])
    result.finish_reason, result.seed = fields["finish_reason"], fields["seed"]
    result.tokens, result.logprob = tuple(fields["tokens"]), fields["logprob"]
    # Of a clock that all processes of a machine share.
    result.metrics = fields["metrics"] and RequestMetrics(**fields["metrics"])
    return result
