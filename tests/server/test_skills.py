"""The routes of the skills over real HTTP: equal to the Python API, streamed as the `moondream` client reads them."""

from __future__ import annotations

import json

import httpx2 as httpx
import pytest

from jaxphoton.requests.answer import Result
from jaxphoton.requests.skills import SKILLS
from jaxphoton.server.service import Service
from tests.server.serving import EXAMPLES, FakeBackend

GREEDY = {"temperature": 0.0}
ARGUMENTS = {
    "caption": {"length": "short"},
    "query": {"question": "What is in the picture?"},
    "detect": {"object": "circle"},
    "point": {"object": "circle"},
}


def post(address: str, skill: str, **body):
    return httpx.post(f"{address}/v1/{skill}", json=body, timeout=60)


def lines(response: httpx.Response) -> list[dict]:
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n") and "[DONE]" not in response.text
    return [json.loads(event.removeprefix("data: ")) for event in response.text.split("\n\n") if event]


@pytest.mark.parametrize("skill", list(ARGUMENTS))
def test_answers_what_the_model_answers(address, shapes, picture, skill):
    answer = post(address, skill, image_url=picture, settings=GREEDY, **ARGUMENTS[skill]).json()
    wanted = getattr(shapes, skill)(EXAMPLES / "scene_01.png", settings=GREEDY, **ARGUMENTS[skill])
    assert {name: answer[name] for name in wanted} == dict(wanted)
    assert answer["finish_reason"] == wanted.finish_reason
    assert answer["metrics"]["output_tokens"] == len(wanted.tokens)
    assert SKILLS[skill].fields[0].name in answer


@pytest.mark.parametrize("skill", ["caption", "query"])
def test_streams_a_text_in_pieces(address, picture, skill):
    body = {"image_url": picture, "settings": GREEDY, **ARGUMENTS[skill]}
    events = lines(post(address, skill, stream=True, **body))
    text = post(address, skill, **body).json()[SKILLS[skill].fields[0].name]
    assert "".join(event["chunk"] for event in events if "chunk" in event) == text
    assert [event["completed"] for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["finish_reason"] == "stop" and events[-1]["metrics"]["output_tokens"] >= len(events) - 1


def test_streams_an_outline(serve, picture):
    """In the events that the client tells apart by their "type"; the shipped model draws no outlines."""
    box = {"x_min": 0.1, "y_min": 0.2, "x_max": 0.3, "y_max": 0.4}
    service = Service(FakeBackend({"bbox": box}, {"chunk": "M 0"}, Result(path="M 0", bbox=box)), ["fake"])
    service.start()
    events = lines(post(serve(service), "segment", image_url=picture, object="cat", stream=True))
    assert [event["type"] for event in events] == ["bbox", "path_delta", "final"]
    assert events[0]["bbox"] == events[2]["bbox"] == box
    assert events[1]["chunk"] == events[2]["path"] == "M 0"
