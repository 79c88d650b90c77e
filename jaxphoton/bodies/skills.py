"""The bodies of /v1/caption, /v1/query and the others, as the `moondream` client sends them; made from `SKILLS`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import msgspec

from jaxphoton.bodies.decoding import decoded
from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.pictures import Picture, ReadPicture, picture_of
from jaxphoton.requests.answer import Result
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.skill import REQUIRED, Argument, Shape
from jaxphoton.requests.skills import SKILLS

# By kind of argument.
_TYPES: Mapping[str, Any] = {
    "text": str,
    "texts": list[str],
    "flag": bool | None,
    "places": list[list[float]] | None,
}


@dataclass(frozen=True, slots=True)
class Body:
    """What a client asks for.

    Attributes:
      picture: bytes, an address, several of these, or None.
      ask: for the model.
      stream: whether the answer is to come in pieces.
      model: the name of one; None for whatever there is.
    """

    picture: Picture
    ask: Ask
    stream: bool = False
    model: str | None = None


@cache
def body_type(skill: str) -> type[msgspec.Struct]:
    """The JSON form of a skill's body. Keys that it has not are passed over, as clients add their own."""
    fields: list[Any] = [
        ("image_url", str) if SKILLS[skill].needs_image else ("image_url", str | None, None),
        *(_field(each) for each in SKILLS[skill].arguments),
        ("stream", bool | None, False),
        ("settings", dict[str, Any] | None, None),
        ("model", str | None, None),
        ("timeout", float | None, None),
        ("priority", int | None, 0),
    ]
    fields.sort(key=lambda each: len(each))  # those without a default first
    return msgspec.defstruct(f"{skill.capitalize()}Body", fields, kw_only=True)


def _field(argument: Argument) -> tuple[Any, ...]:
    kind = Literal[argument.choices] | int if argument.kind == "length" else _TYPES[argument.kind]
    kind = kind | None if argument.default is None else kind
    return (argument.name, kind) if argument.default is REQUIRED else (argument.name, kind, argument.default)


class AnswerMetrics(msgspec.Struct):
    """What an answer took."""

    input_tokens: int
    output_tokens: int
    prefill_time_ms: float
    decode_time_ms: float
    ttft_ms: float


@cache
def answer_type(skill: str) -> type[msgspec.Struct]:
    """The JSON form of a skill's answer. What is no number (NaN) is null."""
    name = skill.capitalize()
    fields: list[Any] = [
        ("request_id", str),
        ("finish_reason", Literal["stop", "length"] | None),
        ("metrics", AnswerMetrics | None),
    ]
    fields += [
        (each.name, _shaped(each.kind.shape, f"{name}{each.name.capitalize()}") | None, None)
        for each in SKILLS[skill].fields
    ]
    return msgspec.defstruct(f"{name}Answer", fields, kw_only=True)


def _shaped(shape: Shape, name: str) -> Any:
    """The type of values of a shape."""
    if isinstance(shape, Mapping):
        return msgspec.defstruct(name, [(each, _shaped(inner, name)) for each, inner in shape.items()])
    if isinstance(shape, list):
        return list[_shaped(shape[0], name)]
    return {"text": str, "integer": int, "number": float | None}[shape]


def parsed(skill: str, data: bytes, read: ReadPicture = picture_of) -> Body:
    """
    Args:
      read: what becomes of the text of a picture.

    Raises:
      BodyError: it is not JSON, or not of the form.
    """
    body: Any = decoded(data, body_type(skill))
    arguments = {each.name: getattr(body, each.name) for each in SKILLS[skill].arguments}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    picture = None if body.image_url is None else read(body.image_url, "image_url")
    try:
        ask = Ask(skill, arguments, body.settings, deadline_of(body.timeout), body.priority or 0)
    except BodyError:
        raise
    except (TypeError, ValueError) as error:  # its settings name an adapter that cannot be one
        raise BodyError(str(error), "settings") from None
    return Body(picture, ask, bool(body.stream), body.model)


def deadline_of(timeout: float | None) -> float | None:
    """The moment, in seconds of `time.monotonic()`, at which a request that may take so many from now is given up.

    Raises:
      BodyError: fewer than 0.
    """
    if timeout is None:
        return None
    if timeout < 0:
        raise BodyError("timeout must be at least 0 seconds", "timeout")
    return time.monotonic() + timeout


def answer_of(result: Result, request_id: str) -> dict[str, Any]:
    """A result as the `moondream` client reads it, and what else there is to say of it."""
    return {**result, "request_id": request_id, **ending_of(result)}


def ending_of(result: Result) -> dict[str, Any]:
    """How an answer ended, and what it took: in a stream beside its last event."""
    metrics = result.metrics
    return {
        "finish_reason": result.finish_reason,
        "metrics": None
        if metrics is None
        else {
            "input_tokens": metrics.input_tokens,
            "output_tokens": metrics.output_tokens,
            "prefill_time_ms": round(1e3 * metrics.prefill, 1),
            "decode_time_ms": round(1e3 * metrics.decode, 1),
            "ttft_ms": round(1e3 * (metrics.queue + metrics.prefill), 1),
        },
    }
