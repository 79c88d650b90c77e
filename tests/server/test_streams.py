"""Streams that fail in the middle, and clients that leave."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from jaxphoton.requests.answer import Result
from jaxphoton.requests.errors import EngineError, ModelClosed
from jaxphoton.server.service import Service
from tests.server.serving import FakeBackend

BROKEN = (EngineError("the device failed twice"), ModelClosed(), KeyError("a fault of ours"))


def ready(backend: FakeBackend) -> Service:
    service = Service(backend, ["fake"])
    service.start()
    return service


def asked(address: str, path: str, body: dict) -> socket.socket:
    """A connection on which a request was sent."""
    where, data = urlsplit(address), json.dumps(body).encode()
    connection = socket.create_connection((where.hostname, where.port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def received(connection: socket.socket, until: bytes = b"") -> bytes:
    """All that comes, or what comes up to the end of `until`."""
    data = b""
    while (not until or until not in data) and (part := connection.recv(65536)):
        data += part
    return data


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_a_failure_in_the_middle_resets_the_connection_of_a_skill(serve, error):
    """Closing it would look like success to the `moondream` client."""
    backend = FakeBackend({"chunk": "The "}, "wait", error)
    with asked(serve(ready(backend)), "/v1/caption", {"image_url": "AAAA", "stream": True}) as connection:
        assert b'"The "' in received(connection, b"\n\n\r\n")
        backend.released.set()
        with pytest.raises(ConnectionResetError):
            received(connection)


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_a_failure_in_the_middle_is_an_event_for_clients_of_openai(serve, error):
    address = serve(ready(FakeBackend({"chunk": "The "}, error)))
    body = {"messages": [{"role": "user", "content": "?"}], "stream": True}
    events = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60).text.split("\n\n")
    assert "[DONE]" not in "".join(events)
    assert json.loads(events[-2].removeprefix("data: "))["error"]["message"]


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_a_failure_before_the_first_event_has_a_status_of_its_own(serve, error):
    address = serve(ready(FakeBackend(error)))
    answer = httpx.post(f"{address}/v1/caption", json={"image_url": "AAAA", "stream": True}, timeout=60)
    assert answer.status_code == (500 if isinstance(error, KeyError) else 503)
    assert answer.json()["error"]["message"]
    assert "a fault of ours" not in answer.text


@pytest.mark.parametrize("body", [{}, {"stream": True}], ids=["plain", "before the first event"])
def test_who_leaves_gives_up_the_work(serve, body):
    backend = FakeBackend("wait", Result(caption="never"))
    connection = asked(serve(ready(backend)), "/v1/caption", {"image_url": "AAAA", **body})
    assert backend.waiting.wait(60)
    connection.close()
    assert backend.given_up.wait(60)


@pytest.mark.parametrize("path", ["/v1/caption", "/v1/chat/completions"])
def test_who_leaves_a_stream_gives_up_the_work(serve, path):
    backend = FakeBackend({"chunk": "The "}, "wait", Result(caption="never"))
    body = {"image_url": "AAAA", "stream": True, "messages": [{"role": "user", "content": "?"}]}
    service = ready(backend)
    connection = asked(serve(service), path, body)
    assert b"The " in received(connection, b"The ")
    connection.close()
    assert backend.given_up.wait(60)


def test_a_row_is_free_after_its_client_has_left(address, service, shapes, picture):
    steps: list[int] = []
    with shapes.observe(launches=lambda launch: steps.append(launch.rows - launch.zombies)):
        settings = {"temperature": 0.0, "max_tokens": 700}
        body = {"image_url": picture, "stream": True, "settings": settings, "question": "What is in the picture?"}
        connection = asked(address, "/v1/query", body)
        received(connection, b"chunk")
        connection.close()
        assert shapes.engine.drain(60)
    now = shapes.engine.metrics()
    assert now.running == now.waiting == 0
    assert httpx.get(f"{address}/v1/stats").json()["running"] == 0
