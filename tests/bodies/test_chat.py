"""The body of /v1/chat/completions."""

from __future__ import annotations

import base64
import json

import pytest

pytest.importorskip("msgspec", reason="needs the extra `serve`")

from jaxphoton.bodies.chat import parsed
from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.pictures import Address
from jaxphoton.image.several import SeveralImages

DATA = "data:image/png;base64," + base64.b64encode(b"picture").decode()
USER = {"role": "user", "content": "Who?"}


def body(messages=(USER,), **parameters):
    return parsed(json.dumps({"messages": list(messages), **parameters}).encode())


def picture(url=DATA):
    return {"type": "image_url", "image_url": {"url": url}}


def refused(match, param, *args, **parameters):
    with pytest.raises(BodyError, match=match) as caught:
        body(*args, **parameters)
    assert caught.value.param == param and caught.value.status == 400


@pytest.mark.parametrize("part", [picture(), {"type": "image_url", "image_url": DATA}])
def test_a_picture_is_an_object_or_a_text(part):
    asked = body([{"role": "user", "content": [part, {"type": "text", "text": "Who?"}]}])
    assert asked.picture == b"picture"


def test_an_address_is_left_to_the_service():
    asked = body([{"role": "user", "content": [picture("http://example.com/a.png"), {"type": "text", "text": "?"}]}])
    assert asked.picture == Address("http://example.com/a.png")


def test_null_and_unknown_parameters_are_as_if_they_were_not_there():
    nothing = ("model", "stream", "stream_options", "response_format", "temperature", "max_tokens", "seed", "stop")
    asked = body(**dict.fromkeys(nothing), top_k=5, logit_bias={"1": 2}, user="me", store=False, tools=None)
    assert asked == body()
    assert asked.ask.settings == {} and not asked.stream and not asked.include_usage


def test_settings():
    asked = body(temperature=0.5, top_p=0.8, max_tokens=3, max_completion_tokens=5, seed=-1)
    assert asked.ask.settings == {"temperature": 0.5, "top_p": 0.8, "max_tokens": 5, "seed": 2**32 - 1}


@pytest.mark.parametrize("stop", ["end", ["end", "."]])
def test_how_the_answer_is_read(stop):
    asked = body(stop=stop, logprobs=True, top_logprobs=0)
    assert asked.ask.settings == {"stop": stop, "logprobs": True} and asked.logprobs
    assert body(stop=[], logprobs=False).ask.settings == {}


@pytest.mark.parametrize(
    "response, settings",
    [
        ({"type": "text"}, {}),
        ({"type": "json_object"}, {"schema": {"type": "object"}}),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}},
            {"schema": {"type": "integer"}},
        ),
    ],
)
def test_a_response_format_restricts_the_answer(response, settings):
    assert body(response_format=response).ask.settings == settings


@pytest.mark.parametrize(
    "param, value, match",
    [
        ("max_tokens", "ten", "int"),
        ("max_tokens", 0, "1 or more"),
        ("temperature", -1, "from 0 to"),
        ("top_p", 0, "above 0"),
        ("n", 2, "n must be 1"),
        ("top_logprobs", 3, "must be 0"),
        ("tools", [{"type": "function"}], "calls no functions"),
        ("response_format", {"type": "json_schema"}, "with a schema"),
        ("timeout", -1, "at least 0"),
        ("stop", ["a"] * 5, "up to 4"),
        ("stop", 3, "str"),
    ],
)
def test_what_there_is_not_is_refused_by_name(param, value, match):
    refused(match, param, **{param: value})


def test_tools_that_nobody_may_call_are_passed_over():
    assert body(tools=[{"type": "function"}], tool_choice="none") == body()


def test_reasoning():
    assert body().ask.arguments["reasoning"] is None
    assert body(reasoning=True).ask.arguments["reasoning"] is True
    assert body(reasoning_effort="none").ask.arguments["reasoning"] is False
    assert body(reasoning_effort="high").ask.arguments["reasoning"] is None


def test_a_conversation_is_its_texts():
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [picture(), {"type": "text", "text": "Who? "}, {"type": "text", "text": "Say."}]},
        {"role": "assistant", "content": "A cat.", "refusal": None},
        {"role": "user", "content": "Which?", "name": "me"},
    ]
    asked = body(turns)
    assert asked.ask.skill == "chat" and asked.picture == b"picture"
    shown = [{"type": "image"}, {"type": "text", "text": "Who? Say."}]
    texts = [("system", "Be brief."), ("user", shown), ("assistant", "A cat."), ("user", "Which?")]
    assert [(each["role"], each["content"]) for each in asked.ask.arguments["messages"]] == texts


def test_pictures_of_several_turns_leave_their_places():
    web = "http://example.com/a.png"
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Who?"}, picture()]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [picture(web), {"type": "text", "text": "And here?"}]},
    ]
    asked = body(turns)
    assert asked.picture == SeveralImages((b"picture", Address(web)))
    place = {"type": "image"}
    told = [each["content"] for each in asked.ask.arguments["messages"]]
    texts = [{"type": "text", "text": text} for text in ("Who?", "And here?")]
    assert told == [[texts[0], place], "A cat.", [place, texts[1]]]
    later = body([{"role": "user", "content": "Hello"}, {"role": "user", "content": [picture()]}])
    assert later.picture == b"picture" and later.ask.arguments["messages"][1]["content"][0] == place


def test_messages_that_cannot_be_answered_are_refused_by_their_place():
    many = {"role": "user", "content": 17 * [picture()]}
    refused("17 pictures", "messages", [many])
    for part in ({"type": "image"}, {"type": "image", "image": DATA}):
        form = r"not 'image'; a picture is sent as .\"type\": \"image_url\", \"image_url\": .\"url\""
        refused(form, "messages[1].content[0]", [USER, {"role": "user", "content": [part]}])
    refused("only the user's", "messages[0]", [{"role": "system", "content": [picture()]}, USER])
    refused("input_audio", "messages[0].content[0]", [{"role": "user", "content": [{"type": "input_audio"}]}])
    refused("last message", "messages[1]", [USER, {"role": "assistant", "content": "A cat."}])
    refused("not .tool", "messages[0].role", [{"role": "tool", "content": "4"}])
    refused("base64", "image_url", [{"role": "user", "content": [picture("data:;base64,!")]}])
    refused("empty", "messages", [])
