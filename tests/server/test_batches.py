"""Batches and requests of connections on one engine, over HTTP, with the shipped model."""

from __future__ import annotations

import json

import httpx2 as httpx

from tests.batch.requests.fake import request
from tests.image.pools import until

SETTINGS = {"temperature": 0, "max_tokens": 40}


def begun(address: str, lines: list[dict], endpoint: str) -> str:
    """The address of a new batch."""
    content = "".join(json.dumps(line) + "\n" for line in lines)
    files = {"purpose": (None, "batch"), "file": ("in.jsonl", content.encode())}
    file = httpx.post(f"{address}/v1/files", files=files, timeout=60).json()["id"]
    body = {"input_file_id": file, "endpoint": endpoint}
    return f"{address}/v1/batches/{httpx.post(f'{address}/v1/batches', json=body).json()['id']}"


def state(batch: str) -> dict:
    return httpx.get(batch).json()


def test_requests_come_first_and_a_cancelled_batch_frees_its_rows(address, picture):
    alone = {"image_url": picture, "length": "long", "settings": SETTINGS}
    wanted = httpx.post(f"{address}/v1/caption", json=alone, timeout=60).json()["caption"]
    batch = begun(address, [request(str(number), **alone) for number in range(400)], "/v1/caption")
    until(lambda: state(batch)["request_counts"]["completed"] > 0, "a first answer")
    assert httpx.post(f"{address}/v1/caption", json=alone, timeout=60).json()["caption"] == wanted
    assert state(batch)["status"] == "in_progress"
    assert httpx.post(f"{batch}/cancel").json()["status"] == "cancelling"
    until(lambda: state(batch)["status"] == "cancelled", "the end of the batch")
    until(lambda: not httpx.get(f"{address}/v1/stats").json()["running"], "free rows")
    answers = httpx.get(f"{address}/v1/files/{state(batch)['output_file_id']}/content").text.splitlines()
    assert 0 < len(answers) == state(batch)["request_counts"]["completed"] < 400
    assert {json.loads(line)["response"]["body"]["caption"] for line in answers} == {wanted}


def test_a_batch_of_conversations_answers_as_the_route_does(address, picture):
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]
    bodies = [
        {"model": model, "temperature": 0, "max_tokens": 5, "messages": [{"role": "user", "content": each}]}
        for model, each in (("shapes", content), (None, "Hello"))
    ] + [{"model": "shapes", "messages": []}, {"model": "other", "messages": [{"role": "user", "content": "Hello"}]}]
    lines = [request(str(number), "/v1/chat/completions", **body) for number, body in enumerate(bodies)]
    batch = begun(address, lines, "/v1/chat/completions")
    until(lambda: state(batch)["status"] == "completed", "the end of the batch")
    files = (state(batch)[name] for name in ("output_file_id", "error_file_id"))
    texts = [httpx.get(f"{address}/v1/files/{file}/content").text.splitlines() for file in files]
    told = {(line := json.loads(text))["custom_id"]: line["response"] for each in texts for text in each}
    for number, body in enumerate(bodies):
        answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)
        response = told[str(number)]
        assert response["status_code"] == answer.status_code
        if answer.status_code == 200:
            assert response["body"]["choices"] == answer.json()["choices"]
            assert response["body"]["model"] == answer.json()["model"] == "shapes"
            assert response["body"]["usage"]["total_tokens"] == answer.json()["usage"]["total_tokens"]
        else:
            assert response["body"] == answer.json()
