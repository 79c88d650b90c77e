"""The body of /v1/chat/completions, as clients of OpenAI's API send it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from jaxphoton.bodies.decoding import decoded
from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.pictures import Picture, ReadPicture, picture_of
from jaxphoton.bodies.skills import Body, deadline_of
from jaxphoton.messages import quoted
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.chatting import together
from jaxphoton.requests.conversation import parted
from jaxphoton.requests.reading import take_reading
from jaxphoton.requests.settings import MAX_SEED, Settings, take_adapter

# Conversations given to a model in Python know another kind, a place for a picture that is given apart.
PARTS = ("text", "image_url")
SAMPLING = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed")


@dataclass(frozen=True, slots=True)
class ChatBody(Body):
    """What a client asks for.

    Attributes:
      include_usage: whether a stream ends with a count of its tokens.
      logprobs: whether the tokens are told with their log-probabilities.
    """

    include_usage: bool = False
    logprobs: bool = False


class ImageUrl(msgspec.Struct):
    url: str


class Part(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: str | ImageUrl | None = None


class Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None


class JsonSchema(msgspec.Struct):
    schema: dict[str, Any] | bool | None = None


class ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatForm(msgspec.Struct, kw_only=True):
    """The JSON form. Null is the same as nothing, and keys that are not here are passed over: of settings all but
    those that name an adapter."""

    messages: list[Message]
    model: str | None = None
    settings: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning: bool | None = None
    reasoning_effort: str | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    tool_choice: Any = None
    timeout: float | None = None
    priority: int | None = None


def parsed(data: bytes, read: ReadPicture = picture_of) -> ChatBody:
    """
    Args:
      read: what becomes of the text of a picture.

    Raises:
      BodyError: it is not JSON, not of the form, or asks for what there is not.
    """
    form = decoded(data, ChatForm)
    _check_abilities(form)
    picture, messages = _conversation(form.messages, read)
    settings = _sampling(form) | _reading(form) | _restriction(form.response_format)
    arguments = {"messages": messages, "reasoning": _reasoning(form)}
    deadline, adapter = deadline_of(form.timeout), _adapter(form.settings)
    ask = Ask("chat", arguments, settings, deadline, form.priority or 0, adapter)
    usage = form.stream_options is not None and bool(form.stream_options.include_usage)
    return ChatBody(picture, ask, bool(form.stream), form.model, usage, bool(form.logprobs))


def _adapter(settings: dict[str, Any] | None) -> str | None:
    try:
        return take_adapter(settings, None)[1]
    except (TypeError, ValueError) as error:
        raise BodyError(str(error), "settings") from None


def _check_abilities(form: ChatForm) -> None:
    """Refuses what would change the answer, and cannot be had."""
    if form.n not in (None, 1):
        raise BodyError("n must be 1: ask once for each answer", "n")
    if form.top_logprobs:
        raise BodyError("top_logprobs must be 0: only the chosen tokens are told", "top_logprobs")
    if form.tool_choice != "none":
        for name in ("tools", "functions"):
            if getattr(form, name):
                raise BodyError(f'this model calls no functions: send no {name}, or tool_choice "none"', name)


def _conversation(messages: list[Message], read: ReadPicture) -> tuple[Picture, list[dict[str, Any]]]:
    """The pictures, and the messages without them."""
    plain = [msgspec.to_builtins(message) for message in messages]
    for number, message in enumerate(messages):
        _check_parts(message.content, f"messages[{number}]")
    for message in plain:
        if message["role"] == "developer":
            message["role"] = "system"
    try:
        texts, pictures = parted(plain)
    except (TypeError, ValueError) as error:
        place = re.match(r"messages(\[\d+\](\.content\[\d+\])?)?", str(error))
        raise BodyError(str(error), place[0] if place else "messages") from None
    return together([read(picture, "image_url") for picture in pictures]), texts


def _check_parts(content: str | list[Part] | None, where: str) -> None:
    for number, part in enumerate(content if isinstance(content, list) else ()):
        if part.type not in PARTS:
            place, form = f"{where}.content[{number}]", '{"type": "image_url", "image_url": {"url": "data:..."}}'
            fault = f"type must be 'text' or 'image_url', not {quoted(part.type)}; a picture is sent as {form}"
            raise BodyError(f"{place}: {fault}", place)


def _sampling(form: ChatForm) -> dict[str, Any]:
    """Settings, each checked by itself, so that errors name the parameter."""
    given: dict[str, Any] = {}
    for name in SAMPLING:
        value = getattr(form, name)
        if value is not None:
            setting = "max_tokens" if name == "max_completion_tokens" else name
            # Theirs has 64 bits and a sign.
            given[setting] = value % (MAX_SEED + 1) if name == "seed" else value
            try:
                Settings.parse({setting: given[setting]}, Settings())
            except (TypeError, ValueError) as error:
                raise BodyError(str(error), name) from None
    return given


def _reading(form: ChatForm) -> dict[str, Any]:
    given = {"stop": form.stop, "logprobs": form.logprobs}
    settings = {name: value for name, value in given.items() if value}
    try:
        take_reading(settings)
    except (TypeError, ValueError) as error:
        raise BodyError(str(error), "stop") from None
    return settings


def _restriction(response: ResponseFormat | None) -> dict[str, Any]:
    if response is None or response.type == "text":
        return {}
    if response.type == "json_object":
        return {"schema": {"type": "object"}}
    if response.json_schema is None or response.json_schema.schema is None:
        raise BodyError("response_format needs json_schema with a schema in it", "response_format")
    return {"schema": response.json_schema.schema}


def _reasoning(form: ChatForm) -> bool | None:
    """None for what the model does by itself."""
    return False if form.reasoning is None and form.reasoning_effort == "none" else form.reasoning
