"""Clients that people have, unchanged, against a real server: that of moondream, and OpenAI's."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import urllib.error
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest

pytest.importorskip("moondream", reason="pip install --no-deps moondream: its client is NOT tested")
pytest.importorskip("openai", reason="extra `clients` is not installed: OpenAI's client is NOT tested")

import moondream
import openai
from PIL import Image
from pydantic import BaseModel

from jaxphoton.requests.answer import Result
from jaxphoton.requests.errors import DeadlineExceeded, EngineError, QueueFull
from jaxphoton.server.options import ServerOptions
from tests.server.serving import EXAMPLES, QUESTION

GREEDY = {"temperature": 0.0}
BOX = {"x_min": 0.1, "y_min": 0.2, "x_max": 0.3, "y_max": 0.4}
MESSAGE = {"role": "assistant", "content": "A cat."}
HELLO: Any = [{"role": "user", "content": "Hello"}]


class Found(BaseModel):
    colour: Literal["red", "yellow"]
    count: Literal[1, 2]


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(EXAMPLES / "scene_01.png")


def vl(address: str, **more: Any) -> Any:
    return moondream.vl(endpoint=address, **more)


@pytest.fixture(scope="module")
def vision(address) -> Any:
    return vl(f"{address}/v1")


@pytest.fixture(scope="module")
def sent(vision, photo) -> bytes:
    """The picture as the client sends it: a JPEG."""
    return base64.b64decode(vision.encode_image(photo).image_url.partition(",")[2])


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as client:
        yield client


def refused(status: int, ask: Callable[[], Any]) -> dict[str, Any]:
    """The error that a client of `urllib` can read, and "retry", when it may ask again."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask()
    with caught.value as error:
        assert error.code == status
        return json.load(error)["error"] | {"retry": error.headers["Retry-After"]}


@pytest.mark.parametrize("number", range(3))
def test_the_examples_of_the_document_run(address, tmp_path, monkeypatch, capsys, number):
    text = (EXAMPLES.parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[number]
    (tmp_path / "examples").symlink_to(EXAMPLES.parent)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(example.replace("http://127.0.0.1:2020", address).replace("sleep(1)", "sleep(0.05)"), scope)
    told = capsys.readouterr().out
    if "client" in scope:
        scope["client"].close()
    assert ("x_min" in told and "The image shows" in told, told == "3\n", told.count('"status_code":200') > 5)[number]


# moondream


@pytest.mark.parametrize(
    "skill, arguments",
    [
        ("caption", {"length": "short"}),
        ("query", {"question": QUESTION}),
        ("query", {"question": QUESTION, "reasoning": True}),
        ("detect", {"object": "fish"}),
        ("point", {"object": "fish"}),
        ("point", {"object": "fish", "spatial_refs": [[0.2, 0.3]]}),
    ],
)
def test_moondream_gets_what_the_model_answers(vision, shapes, photo, sent, skill, arguments):
    settings = {**GREEDY, "max_tokens": 20}
    answer = getattr(vision, skill)(photo, settings=settings, **arguments)
    wanted = getattr(shapes, skill)(sent, settings=settings, **arguments)
    assert json.dumps(answer) == json.dumps({name: wanted[name] for name in answer}) and answer.keys() == wanted.keys()


@pytest.mark.parametrize(
    "skill, arguments, field", [("caption", {}, "caption"), ("query", {"question": QUESTION}, "answer")]
)
def test_moondream_streams_it(vision, photo, skill, arguments, field):
    ask = getattr(vision, skill)
    pieces = list(ask(photo, stream=True, settings=GREEDY, **arguments)[field])
    assert "".join(pieces) == ask(photo, settings=GREEDY, **arguments)[field] and pieces


def test_moondream_asks_without_a_picture(vision, shapes):
    answer = vision.query(question=QUESTION, settings=GREEDY)
    assert answer["answer"] == shapes.query(question=QUESTION, settings=GREEDY)["answer"]


def test_moondream_gets_an_outline(answering, photo):
    """The shipped model draws none."""
    address, _ = answering({"bbox": BOX}, {"chunk": "M 0"}, {"chunk": " 1"}, Result(path="M 0 1", bbox=BOX))
    vision = vl(address)
    assert vision.segment(photo, "fish") == {"path": "M 0 1", "bbox": BOX}
    *events, last = vision.segment(photo, "fish", stream=True)
    assert "".join(event.get("chunk", "") for event in events) == "M 0 1" and events[0]["bbox"] == BOX
    assert (last["path"], last["bbox"]) == ("M 0 1", BOX)


def test_moondream_chats(vision, shapes, photo, sent):
    url = vision.encode_image(photo).image_url
    asked = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}],
    }
    first = vision.chat([asked], settings=GREEDY)
    wanted = shapes.query(sent, QUESTION, settings=GREEDY)
    assert first["message"]["content"] == wanted["answer"] and first["finish_reason"] == wanted.finish_reason
    turns = [asked, first["message"], {"role": "user", "content": "How many?"}]
    second = vision.chat(turns, settings={**GREEDY, "max_tokens": 20})
    pieces = vision.chat(turns, stream=True, settings={**GREEDY, "max_tokens": 20})["message"]
    assert "".join(pieces) == second["message"]["content"] and second["message"]["role"] == "assistant"


def test_moondream_chats_with_its_thoughts(answering):
    message = {**MESSAGE, "reasoning": "Whiskers.", "reasoning_details": {"grounding": []}}
    address, backend = answering({"chunk": "A cat."}, Result(message=message))
    vision = vl(address)
    answer = vision.chat(HELLO, reasoning=True)
    assert message.items() <= answer["message"].items() and backend.asked[0][1].arguments["reasoning"] is True


def test_moondream_passes_on_its_thoughts(answering, photo):
    thought = {"text": "Whiskers.", "grounding": [{"start_idx": 0, "end_idx": 2, "points": [[0.1, 0.2]]}]}
    address, _ = answering(Result(answer="A cat.", reasoning=thought))
    answer = vl(address).query(photo, "Who?", reasoning=True)
    assert answer == {"answer": "A cat.", "reasoning": thought}


@pytest.mark.parametrize(
    "ask, status, fault",
    [
        (lambda vision, photo: vision.caption(photo, length="endless"), 400, "endless"),
        (lambda vision, photo: vision.detect(photo, " "), 400, "must not be empty"),
        (lambda vision, photo: vision.segment(photo, "fish"), 400, "no prompt for 'segment'"),
        (lambda vision, photo: vision.caption(photo, settings={"variant": "a"}), 404, "no adapter 'a' here"),
        (lambda vision, photo: vision.chat([]), 400, "must not be empty"),
        (lambda vision, photo: vl(vision.endpoint, model="other").caption(photo), 404, "other"),
        (lambda vision, photo: vl(vision.endpoint + "/v2").caption(photo), 404, "/v1/v2/caption"),
    ],
)
def test_moondream_is_told_what_is_wrong(vision, photo, ask, status, fault):
    assert fault in refused(status, lambda: ask(vision, photo))["message"]


@pytest.mark.parametrize(
    "error, status", [(QueueFull(""), 429), (EngineError("gone"), 503), (DeadlineExceeded("late"), 504)]
)
def test_moondream_is_told_what_has_failed(answering, photo, error, status):
    address, backend = answering(error)
    told = refused(status, lambda: vl(address).caption(photo))
    assert told["message"] and (told["retry"] is not None) == (status == 429) and len(backend.asked) == 1


def test_moondream_does_not_take_a_failure_in_a_stream_for_the_end(answering, photo):
    """A clean end, and an event that has an error, it takes for success."""
    address, _ = answering({"chunk": "A "}, EngineError("the device is gone"))
    vision = vl(address)
    for stream in (
        lambda: vision.caption(photo, stream=True)["caption"],
        lambda: vision.query(photo, "Who?", stream=True)["answer"],
        lambda: vision.chat(HELLO, stream=True)["message"],
    ):
        pieces = []
        with pytest.raises(ConnectionResetError):
            pieces += stream()


def test_moondream_shows_its_key(answering, photo):
    address, _ = answering(Result(caption="A cat.", message=MESSAGE), options=ServerOptions(keys=("secret",)))
    assert vl(address, api_key="secret").caption(photo) == {"caption": "A cat."}
    assert vl(address, api_key="secret").chat(HELLO)["message"]["content"] == "A cat."
    for key in ("wrong", None):
        ask = partial(vl(address, api_key=key).caption, photo)
        assert refused(401, ask)["code"] == "invalid_api_key"


# openai


def test_openai_gets_what_the_model_answers(client, shapes, about):
    answer = client.chat.completions.create(model="shapes", messages=about, temperature=0)
    wanted = shapes.query(EXAMPLES / "scene_01.png", QUESTION, settings=GREEDY)
    (choice,) = answer.choices
    assert choice.message.content == wanted["answer"] and choice.finish_reason == wanted.finish_reason
    assert answer.usage.completion_tokens == len(wanted.tokens) and answer.model == "shapes"


def test_openai_streams_it(client, about):
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model="shapes", messages=about, temperature=0, stream=True, stream_options=options
    )
    *chunks, count = stream
    answer = client.chat.completions.create(model="shapes", messages=about, temperature=0)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason == "stop"
    assert not count.choices and count.usage.completion_tokens == answer.usage.completion_tokens


def test_openai_puts_chunks_together(client, about):
    arguments = {"model": "shapes", "messages": about, "temperature": 0, "logprobs": True}
    with client.chat.completions.stream(**arguments) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    answer = client.chat.completions.create(**arguments)
    (choice,), (wanted,) = final.choices, answer.choices
    assert "".join(pieces) == choice.message.content == wanted.message.content
    assert choice.finish_reason == wanted.finish_reason
    assert [token.token for token in choice.logprobs.content] == [token.token for token in wanted.logprobs.content]


def test_openai_parses_an_answer(client, about):
    answer = client.chat.completions.parse(model="shapes", messages=about, response_format=Found)
    assert isinstance(answer.choices[0].message.parsed, Found)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="shapes", messages=about, response_format=Found, max_tokens=1)


def test_openai_lists_models(client):
    assert [model.id for model in client.models.list()] == ["shapes"]
    assert client.models.retrieve("shapes").id == "shapes"


def test_openai_reads_headers(client, about):
    raw = client.chat.completions.with_raw_response.create(model="shapes", messages=about, max_tokens=5)
    assert raw.headers["content-type"] == "application/json" and raw.parse().choices[0].message.content


def test_openai_in_asyncio(address, client, about):
    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="any") as asked:
            arguments: Any = {"model": "shapes", "messages": about, "temperature": 0}
            answer = await asked.chat.completions.create(**arguments)
            async with await asked.chat.completions.create(**arguments, stream=True) as stream:
                pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return answer.choices[0].message.content, "".join(pieces)

    answer, streamed = asyncio.run(ask())
    wanted = client.chat.completions.create(model="shapes", messages=about, temperature=0)
    assert answer == streamed == wanted.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "arguments, error, param, code",
    [
        ({"messages": []}, openai.BadRequestError, "messages", None),
        ({"max_tokens": "ten"}, openai.BadRequestError, "max_tokens", None),
        ({"temperature": -1}, openai.BadRequestError, "temperature", None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools", None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            openai.BadRequestError,
            "response_format",
            None,
        ),
        ({"model": "gpt-9"}, openai.NotFoundError, "model", "model_not_found"),
    ],
)
def test_openai_is_told_what_is_wrong(client, stream, arguments, error, param, code):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "shapes", "messages": HELLO, "stream": stream, **arguments})
    assert (caught.value.param, caught.value.code) == (param, code) and caught.value.message
    assert caught.value.type == ("not_found_error" if code else "invalid_request_error")


@pytest.mark.parametrize("stream", [False, True])
def test_openai_is_told_of_a_schema_that_cannot_be_kept(client, stream):
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {"type": "integer"}}}}
    with pytest.raises(openai.BadRequestError, match="schema cannot be used.*not"):
        client.chat.completions.create(model="shapes", messages=HELLO, stream=stream, response_format=form)


def test_openai_is_told_what_there_is_not(client):
    with pytest.raises(openai.NotFoundError, match="/v1/responses"):
        client.responses.create(model="shapes", input="Hello")
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        client.models.retrieve("gpt-9")


def test_openai_is_told_what_is_not_allowed(answering):
    address, backend = answering(options=ServerOptions(keys=("secret",), max_body=1000))
    with openai.OpenAI(base_url=address, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    with openai.OpenAI(base_url=address, api_key="secret", default_headers={"Origin": "http://a.example"}) as client:
        with pytest.raises(openai.PermissionDeniedError):
            client.models.list()
    with openai.OpenAI(base_url=address, api_key="secret") as client:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "a" * 2000}])
    assert caught.value.status_code == 413 and not backend.asked


@pytest.mark.parametrize(
    "failure, error, tries",
    [
        (QueueFull(""), openai.RateLimitError, 2),
        (EngineError("gone"), openai.InternalServerError, 2),
        (DeadlineExceeded("late"), openai.InternalServerError, 1),  # it would be as late again
        (LookupError("a surprise"), openai.InternalServerError, 2),
    ],
)
def test_openai_tries_again_what_may_be_better_then(answering, failure, error, tries):
    address, backend = answering(failure)
    with openai.OpenAI(base_url=address, api_key="any", max_retries=1) as client, pytest.raises(error) as caught:
        client.chat.completions.create(model="fake", messages=HELLO)
    assert len(backend.asked) == tries and caught.value.body is not None and "surprise" not in caught.value.message


def test_openai_does_not_double_the_work_by_trying_again(answering):
    address, backend = answering("wait", Result(message=MESSAGE))
    with openai.OpenAI(base_url=address, api_key="any", max_retries=1, timeout=0.2) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="fake", messages=HELLO)
    assert backend.given_up.wait(60) and len(backend.asked) == 2


def test_openai_hears_of_a_failure_in_a_stream(answering):
    address, _ = answering({"chunk": "A "}, EngineError("the device is gone"))
    pieces = []
    with openai.OpenAI(base_url=address, api_key="any") as client:
        with pytest.raises(openai.APIError, match="the device is gone"):
            for chunk in client.chat.completions.create(model="fake", messages=HELLO, stream=True):
                pieces.append(chunk.choices[0].delta.content)
    assert "".join(pieces) == "A "
