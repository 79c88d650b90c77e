"""Chat completions over real HTTP."""

from __future__ import annotations

import json
import socket
from itertools import islice, pairwise
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from jaxphoton.requests.answer import Result
from jaxphoton.requests.errors import EngineError
from tests.server.serving import EXAMPLES, QUESTION

GREEDY = {"temperature": 0.0}
ASKED = {"messages": [{"role": "user", "content": QUESTION}]}


def post(address: str, **body):
    return httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)


@pytest.fixture
def asked(about) -> dict:
    return {"messages": about, **GREEDY}


def events(text: str) -> list[dict]:
    *events, last, end = text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_answers_what_the_model_answers(address, shapes, asked):
    answer = post(address, **asked).json()
    wanted = shapes.query(EXAMPLES / "scene_01.png", QUESTION, settings=GREEDY)
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == wanted["answer"] and choice["finish_reason"] == wanted.finish_reason
    assert answer["model"] == "shapes"
    assert answer["usage"]["completion_tokens"] == len(wanted.tokens)
    assert answer["usage"]["prompt_tokens"] == wanted.metrics.input_tokens


def test_streams_the_same_in_chunks(address, asked):
    options = {"stream_options": {"include_usage": True}}
    response = post(address, stream=True, **options, **asked)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, count = events(response.text)
    answer = post(address, **asked).json()
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == answer["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == answer["choices"][0]["finish_reason"]
    assert count["choices"] == [] and count["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_with_an_ask_has_a_status(address, stream):
    response = post(address, stream=stream, messages=[{"role": "user", "content": " "}])
    error = response.json()["error"]
    assert response.status_code == 400 and error["param"] == "messages[0]" and "neither text" in error["message"]


def test_an_answer_ends_in_front_of_a_stop_text_and_tells_its_tokens(address, asked):
    whole = post(address, **asked, logprobs=True).json()["choices"][0]
    text = whole["message"]["content"]
    assert "".join(token["token"] for token in whole["logprobs"]["content"]) == text
    answer = post(address, **asked, stop=text[-1]).json()
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == text[: text.index(text[-1])] and choice["finish_reason"] == "stop"


@pytest.mark.parametrize("settings", [{"seed": 2**40}, {"response_format": {"type": "json_object"}}])
def test_a_conversation_goes_on(address, asked, settings):
    first = post(address, **asked).json()["choices"][0]["message"]
    more = [*asked["messages"], first, {"role": "user", "content": "And which colours?"}]
    answer = post(address, **{**asked, "messages": more}, **settings, max_tokens=40).json()
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0  # the picture is not encoded again


def test_pictures_of_later_turns_and_the_whole_history_again(address, asked, picture):
    """As chat clients do, Open WebUI among them: each request has all that was said and shown before."""
    shown = {"type": "image_url", "image_url": {"url": picture}}
    messages, prompts = list(asked["messages"]), []
    for question in ("And this?", "And the third?", None):
        answer = post(address, **{**asked, "messages": messages}, max_tokens=8).json()
        prompts.append(answer["usage"])
        if question:
            content = [{"type": "text", "text": question}, shown]
            messages += [answer["choices"][0]["message"], {"role": "user", "content": content}]
    assert all(later["prompt_tokens"] - before["prompt_tokens"] > 64 for before, later in pairwise(prompts))
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in prompts[1:]]
    assert cached == [65, 65]  # the picture in front, and no other
    pieces = post(address, **{**asked, "messages": messages}, max_tokens=8, stream=True).text
    told = [json.loads(line[6:]) for line in pieces.splitlines() if line.startswith("data: {")]
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in told if each["choices"])
    assert text == answer["choices"][0]["message"]["content"]
    error = post(address, messages=9 * [{"role": "user", "content": [shown]}]).json()["error"]
    assert error["type"] == "invalid_request_error" and "context holds 512" in error["message"]
    broken = {"role": "user", "content": [shown, {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}]}
    error = post(address, messages=[broken]).json()["error"]
    assert error["param"] == "image_url" and "picture 2 of 2" in error["message"]


def test_a_failure_in_a_stream_is_an_event_of_its_own(answering):
    address, _ = answering({"chunk": "A "}, EngineError("the device is gone"))
    with httpx.stream("POST", f"{address}/chat/completions", json={**ASKED, "stream": True}) as response:
        lines = response.iter_lines()
        told = [json.loads(line.removeprefix("data: ")) for line in islice(lines, 5) if line]
    assert told[1]["choices"][0]["delta"] == {"content": "A "}
    assert told[2]["error"]["message"] == "the device is gone"


@pytest.mark.parametrize("first", [(), ({"chunk": "A "},)])
@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_gives_the_ask_up(answering, stream, first):
    address, backend = answering(*first, "wait", Result(message={"role": "assistant", "content": "A cat."}))
    data = json.dumps({**ASKED, "stream": stream}).encode()
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port)) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        assert backend.waiting.wait(60)
    assert backend.given_up.wait(60)
