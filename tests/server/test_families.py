"""A model of another family behind the same routes, for what it can be asked; the rest is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2 as httpx
import pytest

from jaxphoton.server.backend import LocalBackend
from jaxphoton.server.service import Service
from tests.server.serving import EXAMPLES, QUESTION, served

SHORT = {"temperature": 0, "max_tokens": 24}
SCENE = EXAMPLES / "scene_01.png"


@pytest.fixture(scope="module")
def address(joycaption) -> Iterator[str]:
    service = Service(LocalBackend(joycaption), ["joycaption"])
    service.start()
    with served(service) as address:
        yield address


def post(address: str, path: str, **body) -> httpx.Response:
    return httpx.post(f"{address}/v1/{path}", json=body, timeout=60)


def events(response: httpx.Response) -> list[dict]:
    assert response.status_code == 200
    told = [event.removeprefix("data: ") for event in response.text.split("\n\n") if event]
    return [json.loads(event) for event in told if event != "[DONE]"]


def test_its_names_say_what_it_can_be_asked(address):
    (model,) = httpx.get(f"{address}/v1/models").json()["data"]
    assert (model["id"], model["skills"], model["reasoning"]) == ("joycaption", ["caption", "query"], False)


def test_captions_of_a_type_are_asked_for(address, joycaption, picture):
    asked = {"length": 20, "type": "Booru-like tag list", "extra": ["pg"], "name": "Ann"}
    answer = post(address, "caption", image_url=picture, settings=SHORT, **asked).json()
    wanted = joycaption.caption(SCENE, settings=SHORT, **asked)
    plain = joycaption.caption(SCENE, settings=SHORT)
    assert answer["caption"] == wanted["caption"]
    assert answer["metrics"]["input_tokens"] == wanted.metrics.input_tokens > plain.metrics.input_tokens
    for wrong, fault in (({"type": "poem"}, "type must be one of"), ({"extra": ["smell"]}, "extra must be one of")):
        response = post(address, "caption", image_url=picture, **wrong)
        assert response.status_code == 400 and response.json()["error"]["message"].startswith(fault)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_conversation_is_answered_in_whole_and_in_pieces(address, joycaption, picture, system):
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": QUESTION}]
    messages = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": content}]
    answer = post(address, "chat/completions", messages=messages, **SHORT).json()
    (choice,) = answer["choices"]
    given = [*messages[:-1], {"role": "user", "content": [{"type": "image", "image": SCENE}, content[1]]}]
    wanted = joycaption.chat(given, settings=SHORT)
    assert wanted["message"] == {"role": "assistant", "content": choice["message"]["content"]}
    assert (choice["finish_reason"], answer["model"]) == (wanted["finish_reason"], "joycaption")
    assert answer["usage"]["completion_tokens"] == len(wanted.tokens)
    streamed = events(post(address, "chat/completions", messages=messages, stream=True, **SHORT))
    pieces = [each["choices"][0]["delta"].get("content") or "" for each in streamed]
    assert "".join(pieces) == choice["message"]["content"] and len([piece for piece in pieces if piece]) > 1


@pytest.mark.parametrize(
    ("skill", "arguments"), [("caption", {"length": "long"}), ("query", {"question": f" {QUESTION}"})]
)
def test_texts_stream_without_white_space_at_their_ends(address, joycaption, picture, skill, arguments):
    ask, white, longest = getattr(joycaption, skill), 0, ("", {})
    for seed in range(12):
        settings = {"temperature": 1.0, "max_tokens": 6, "seed": seed}
        wanted = ask(SCENE, settings=settings, **arguments)
        (text,) = wanted.values()
        assert text == joycaption.tokenizer.decode(list(wanted.tokens)).strip()
        (pieces,) = ask(SCENE, settings=settings, stream=True, **arguments).values()
        assert "".join(pieces) == text
        white += text != joycaption.tokenizer.decode(list(wanted.tokens))
        longest = max(longest, (text, settings), key=lambda each: len(each[0]))
    assert white
    text, settings = longest
    streamed = events(post(address, skill, image_url=picture, stream=True, settings=settings, **arguments))
    assert "".join(event.get("chunk", "") for event in streamed) == text
    stop = text[len(text) // 2 :].strip()[0]
    (cut,) = ask(SCENE, settings=settings | {"stop": stop}, **arguments).values()
    assert cut == text[: text.index(stop)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("skill", ["detect", "point", "segment"])
def test_other_skills_are_refused_by_name_before_a_picture_is_looked_at(address, skill, stream):
    response = post(address, skill, image_url="bm8gcGljdHVyZQ==", object="cat", stream=stream)
    error = response.json()["error"]
    assert response.status_code == 400 and error["type"] == "invalid_request_error"
    assert error["message"] == f"this model has no prompt for '{skill}'; it has: caption, query, chat"


def test_a_second_picture_is_refused_by_its_place(address, picture):
    part = {"type": "image_url", "image_url": {"url": picture}}
    messages = [{"role": "user", "content": [part, part, {"type": "text", "text": "Which?"}]}]
    response = post(address, "chat/completions", messages=messages)
    assert response.status_code == 400 and "messages[0]: this model looks at one picture" in response.text


def test_python_is_told_the_same(joycaption):
    for ask in (joycaption.detect, joycaption.point, joycaption.segment):
        with pytest.raises(ValueError, match="this model has no prompt for '.*'; it has: caption, query, chat$"):
            ask("no-such-file.png", "cat")
    with pytest.raises(ValueError, match="does not reason"):
        joycaption.query("no-such-file.png", "Why?", reasoning=True)
    with pytest.raises(ValueError, match="this model has no prompt for 'detect'"):
        next(iter(joycaption.batch("detect", ["no-such-file.png"], object="cat")))
