"""Answers as OpenAI's clients read them."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("msgspec", reason="needs the extra `serve`")

import msgspec

from jaxphoton.bodies.chat import parsed
from jaxphoton.bodies.completion import ChatCompletion, Completion
from jaxphoton.requests.answer import Result


def completion(**parameters):
    messages = [{"role": "user", "content": "Who?"}]
    return Completion(parsed(json.dumps({"messages": messages, **parameters}).encode()), "m")


def result(**more):
    message = {"role": "assistant", "content": "A cat.", **more}
    made = Result({"message": message, "finish_reason": "stop"})
    made.finish_reason, made.tokens = "stop", (5, 6, 0)
    return made


def test_an_answer_is_a_message_of_the_assistant():
    whole = completion().whole(result())
    assert whole["object"] == "chat.completion" and whole["model"] == "m" and whole["id"].startswith("chatcmpl-")
    (choice,) = whole["choices"]
    assert choice["message"] == {"role": "assistant", "content": "A cat.", "refusal": None}
    assert choice["index"] == 0 and choice["finish_reason"] == "stop" and choice["logprobs"] is None
    assert whole["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("more", [{}, {"reasoning": "Hm.", "reasoning_details": {"grounding": []}}])
def test_the_form_that_is_told_is_that_of_answers(more):
    answer = result(**more)
    answer.logprobs = [{"token": "A", "logprob": -0.5, "bytes": [65]}]
    whole = completion(logprobs=True).whole(answer)
    assert msgspec.to_builtins(msgspec.convert(whole, ChatCompletion)) == whole


def test_what_was_thought_stands_beside_the_answer():
    grounding = [{"start_idx": 0, "end_idx": 2, "points": [[0.1, 0.2]]}]
    told = {"reasoning": "Whiskers.", "reasoning_details": {"grounding": grounding}}
    message = completion().whole(result(**told))["choices"][0]["message"]
    assert {name: message[name] for name in told} == told
    (chunk,) = completion().chunks({"reasoning": {"text": "Whiskers.", "grounding": grounding}})
    assert chunk["choices"][0]["delta"] == told
    (chunk,) = completion().chunks({"reasoning": {"text": "Whiskers.", "grounding": []}})
    assert chunk["choices"][0]["delta"] == {"reasoning": "Whiskers."}


def test_chunks_of_one_answer_have_one_head_and_make_it_up():
    words = completion()
    done = result()
    events = [{"reasoning": {"text": "Hm.", "grounding": []}}, {"chunk": "A "}, {"chunk": "cat."}, done]
    chunks = [words.opening(), *(chunk for event in events for chunk in words.chunks(event))]
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "A cat."
    assert "".join(choice["delta"].get("reasoning", "") for choice in choices) == "Hm."
    assert choices[0]["delta"]["role"] == "assistant"
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]
    assert all("usage" not in chunk for chunk in chunks)


def test_tokens_are_counted_in_a_last_chunk_without_choices():
    words = completion(stream_options={"include_usage": True})
    assert words.opening()["usage"] is None
    *_, last = words.chunks(result())
    assert last["choices"] == [] and last["usage"]["total_tokens"] == 3


def test_tokens_are_told_where_that_was_asked_for():
    tokens = [{"token": "A", "logprob": -0.5, "bytes": [65]}]
    told = {"content": [{**tokens[0], "top_logprobs": []}], "refusal": None}
    answer = result()
    answer.logprobs = tokens
    assert completion(logprobs=True).whole(answer)["choices"][0]["logprobs"] == told
    assert completion().whole(answer)["choices"][0]["logprobs"] is None
    first, last = {"chunk": "A", "logprobs": tokens}, {"chunk": "", "logprobs": tokens}
    for event in (first, last):
        (chunk,) = completion(logprobs=True).chunks(event)
        assert chunk["choices"][0]["logprobs"] == told
