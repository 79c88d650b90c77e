"""The routes of the skills over real HTTP: equal to the Python API, streamed as the `moondream` client reads them."""

from __future__ import annotations

import json
import time

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


def test_urgency_is_in_the_body_or_in_the_headers(serve):
    backend = FakeBackend()
    service = Service(backend, ["fake"])
    service.start()
    address, body = serve(service), {"image_url": "AAAA"}
    headers = {"X-Request-Timeout": "50", "X-Priority": "-3"}
    for more in ({}, {"timeout": 1000, "priority": 7}):
        assert httpx.post(f"{address}/v1/caption", json=body | more, headers=headers).status_code == 200
    now = time.monotonic()
    (_, by_header), (_, by_body) = backend.asked
    assert (by_header.priority, by_body.priority) == (-3, 7)
    assert by_header.deadline is not None and by_header.deadline < now + 51
    assert by_body.deadline is not None and by_body.deadline > now + 900
    for name, value in (("X-Request-Timeout", "soon"), ("X-Request-Timeout", "nan"), ("X-Priority", "1.5")):
        answer = httpx.post(f"{address}/v1/caption", json=body, headers={name: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_that_has_passed_is_504_and_not_to_be_tried_again(address, picture, stream):
    answer = post(address, "caption", image_url=picture, timeout=0, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert answer.headers["x-should-retry"] == "false"
