"""An answer as OpenAI's clients read it: a chat.completion, or the chunks of one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from jaxphoton.bodies.chat import ChatBody
from jaxphoton.requests.answer import Result
from jaxphoton.requests.tokens import Event


class AnswerMessage(msgspec.Struct):
    role: Literal["assistant"]
    content: str
    refusal: None
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    reasoning_details: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float | None
    bytes: list[int]
    top_logprobs: list[Any]


class ChoiceLogprobs(msgspec.Struct):
    content: list[TokenLogprob]
    refusal: None


class Choice(msgspec.Struct):
    index: Literal[0]
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"]


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ChatCompletion(msgspec.Struct):
    """The JSON form of an answer, for those who want to know it."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: None
    choices: list[Choice]
    usage: Usage


class Completion:
    """Words one answer.

    Args:
      model: its name.
      request_id: tells it from others; None makes one.
    """

    def __init__(self, body: ChatBody, model: str, request_id: str | None = None):
        self._body = body
        self._head = {"id": f"chatcmpl-{request_id or uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, result: Result) -> dict[str, Any]:
        """The body of a response."""
        message = {**result["message"], "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(result.logprobs),
            "finish_reason": result.finish_reason,
        }
        return {
            **self._head,
            "object": "chat.completion",
            "system_fingerprint": None,
            "choices": [choice],
            "usage": usage_of(result),
        }

    def opening(self) -> dict[str, Any]:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def chunks(self, event: Event) -> list[dict[str, Any]]:
        """Those of an event."""
        if isinstance(event, Result):
            last = [self._chunk({}, event.finish_reason)]
            return last + [self._count(event)] if self._body.include_usage else last
        delta = _thought(event) | ({"content": event["chunk"]} if "chunk" in event else {})
        return [self._chunk(delta, None, event.get("logprobs", ()))] if delta else []

    def _chunk(
        self, delta: dict[str, Any], finish: str | None = None, tokens: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        told = self._logprobs(tokens) if tokens else None
        return self._event([{"index": 0, "delta": delta, "logprobs": told, "finish_reason": finish}], None)

    def _logprobs(self, tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        if not self._body.logprobs:
            return None
        return {"content": [{**token, "top_logprobs": []} for token in tokens], "refusal": None}

    def _count(self, result: Result) -> dict[str, Any]:
        return self._event([], usage_of(result))

    def _event(self, choices: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
        told = {"usage": usage} if self._body.include_usage else {}
        return {
            **self._head,
            "object": "chat.completion.chunk",
            "system_fingerprint": None,
            "choices": choices,
            **told,
        }


def usage_of(result: Result) -> dict[str, Any]:
    """Counts of tokens; the picture's places are among those of the prompt."""
    metrics = result.metrics
    prompt, cached = (0, 0) if metrics is None else (metrics.input_tokens, metrics.cached_tokens)
    answer = len(result.tokens)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _thought(event: Event) -> dict[str, Any]:
    """What was thought before the answer, as it stands in a message."""
    thought = event.get("reasoning")
    if not thought:
        return {}
    grounding = {"reasoning_details": {"grounding": thought["grounding"]}} if thought.get("grounding") else {}
    return {"reasoning": thought["text"], **grounding}
