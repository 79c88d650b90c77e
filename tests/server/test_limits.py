"""Bodies and headers that are too large or too slow, and what is no HTTP."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from jaxphoton.bodies.faults import BodyError
from jaxphoton.cli.serve import _allow_files
from jaxphoton.requests.answer import Result
from jaxphoton.server import listening
from jaxphoton.server.failures import Failures
from jaxphoton.server.limits import Limits
from jaxphoton.server.options import ServerOptions
from tests.server.serving import FakeBackend
from tests.server.test_streams import asked, ready, received

SMALL = ServerOptions(max_body=1000, max_headers=2000)
ANY_ERROR = {"message": "there are too many connections", "type": "rate_limit_error", "param": None}
HEAD = b"POST /v1/caption HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


def spoken(address: str, *parts: bytes) -> tuple[int, dict]:
    """The status and the error of what is answered to these bytes, until the connection is closed."""
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        head, _, body = received(connection).partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(serve, backend):
    address = serve(ready(backend), SMALL)
    head = HEAD + b"Expect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n"
    status, error = spoken(address, head)
    assert (status, error["code"]) == (413, "body_too_large")
    assert not backend.asked


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_with_an_answer_that_arrives(serve, backend, chunked):
    """Also where the client sends all of it before it looks."""
    address = serve(ready(backend), SMALL)
    content = iter([b"x" * 900] * 3) if chunked else b"x" * 2700
    answer = httpx.post(f"{address}/v1/caption", content=content, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert not backend.asked


def test_who_sends_all_before_looking_sees_the_error(serve, backend):
    """As urllib does, and closes: a connection that is ended while data comes would be a reset."""
    address = serve(ready(backend), ServerOptions(max_body=8 << 20))
    for path, status in (("/nowhere", 404), ("/v1/caption", 413)):
        size = (8 << 20) + (1 if status == 413 else -1)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        assert spoken(address, head.encode(), b"x" * size)[0] == status


def test_of_a_body_a_little_too_large_nothing_is_left_unread():
    """The system would reset the connection, and the answer may be lost."""
    parts, sent = [b"x" * 1000, b"x"], []

    async def receive() -> Message:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    scope = {"type": "http", "method": "POST", "raw_path": b"/v1/caption", "query_string": b""}
    headers = [(b"content-length", b"1001")]
    asyncio.run(Limits(Failures(reads), SMALL)(scope | {"headers": headers}, receive, send))
    assert sent[0]["status"] == 413 and not parts


def test_a_body_of_the_largest_size_is_taken(serve, backend):
    body = json.dumps({"image_url": "AAAA"}).encode().ljust(1000)
    assert httpx.post(f"{serve(ready(backend), SMALL)}/v1/caption", content=body, timeout=60).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(serve, backend):
    address = serve(ready(backend), ServerOptions(body_timeout=0.05))
    status, error = spoken(address, HEAD + b"Content-Length: 100\r\nConnection: close\r\n\r\n", b'{"image')
    assert (status, error["code"]) == (408, "body_timeout")


def test_headers_that_do_not_come_are_not_waited_for(serve, backend):
    address = serve(ready(backend), ServerOptions(header_timeout=0.05))
    where = urlsplit(address)
    for begun in (b"", HEAD):
        with socket.create_connection((where.hostname, where.port), timeout=60) as connection:
            connection.sendall(begun)
            try:
                assert connection.recv(100) == b""
            except ConnectionResetError:
                pass


def test_a_request_takes_longer_than_its_headers_may(serve):
    """The limit on headers is not one on answers."""
    backend = FakeBackend({"chunk": "a"}, "wait", Result(caption="a"))
    address = serve(ready(backend), ServerOptions(header_timeout=0.05))
    other = serve(ready(FakeBackend()), ServerOptions(header_timeout=0.05))
    with httpx.stream("POST", f"{address}/v1/caption", json={"image_url": "AAAA", "stream": True}) as answer:
        pieces = answer.iter_text()
        next(pieces)
        where = urlsplit(other)
        with socket.create_connection((where.hostname, where.port), timeout=60) as idle:
            idle.recv(1)  # so much time has passed
        backend.released.set()
        assert '"completed":true' in "".join(pieces)


@pytest.mark.parametrize("size", [3000, 100_000])
def test_large_headers_are_refused(serve, backend, size):
    address = serve(ready(backend), SMALL)
    status, error = spoken(address, HEAD + b"X-Big: " + b"x" * size + b"\r\nConnection: close\r\n\r\n")
    assert (status, error["type"]) == (431, "invalid_request_error")


@pytest.mark.parametrize("garbage", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x00\xa5\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_has_an_error_of_the_same_form(serve, backend, garbage):
    status, error = spoken(serve(ready(backend)), garbage)
    assert status == 400 and error["type"] == "invalid_request_error"


def test_more_connections_than_files_are_told_so(serve, backend, monkeypatch):
    monkeypatch.setattr(listening, "most_connections", lambda: 2)
    address = serve(ready(backend))
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port)), httpx.Client(timeout=60) as second:
        assert second.get(f"{address}/health").status_code == 200
        assert spoken(address) == (429, {**ANY_ERROR, "code": "too_many_connections"})
        assert second.get(f"{address}/health").status_code == 200


@pytest.mark.parametrize("files, most", [(1024, 824), (20, 10), (10**6, 10_000), (resource.RLIM_INFINITY, 10_000)])
def test_files_are_left_for_other_things(monkeypatch, files, most):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert listening.most_connections() == most


@pytest.mark.parametrize(
    "limits, wanted",
    [
        ((1024, 4096), [(4096, 4096)]),
        ((1024, 10**6), [(65_536, 10**6)]),
        ((1024, resource.RLIM_INFINITY), [(65_536, resource.RLIM_INFINITY)]),
        ((10**6, 10**6), []),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), []),
    ],
)
def test_the_command_asks_for_as_many_files_as_it_may_have(monkeypatch, limits, wanted):
    asked_for = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: asked_for.append(given))
    _allow_files()
    assert asked_for == wanted


def test_a_body_that_finds_no_room_makes_some_while_its_rest_comes():
    begun, rest = asyncio.Event(), asyncio.Event()

    async def reads(scope, receive, send):
        answer = Response(status_code=200)
        try:
            while (await receive())["more_body"]:
                pass
        except BodyError as error:
            answer = Response(status_code=error.status)
        await answer(scope, receive, send)

    async def status(limits, sizes) -> int:
        sizes, told = list(sizes), []

        async def receive():
            if len(sizes) == 1:
                begun.set()
                await rest.wait()
            return {"type": "http.request", "body": b"x" * sizes.pop(0), "more_body": bool(sizes)}

        async def send(message):
            told.append(message)

        scope = {"type": "http", "method": "POST", "raw_path": b"/", "query_string": b"", "headers": []}
        await limits(scope, receive, send)
        return told[0]["status"]

    async def all_of_them() -> list[int]:
        limits = Limits(reads, ServerOptions(max_body=1000, max_bodies=1000))
        first = asyncio.create_task(status(limits, [500, 0]))
        await begun.wait()
        begun.clear()
        second = asyncio.create_task(status(limits, [400, 400, 0]))  # refused at its second part
        await begun.wait()
        third = asyncio.create_task(status(limits, [450, 0]))
        rest.set()
        return list(await asyncio.gather(first, second, third))

    assert asyncio.run(all_of_them()) == [200, 429, 200]


def test_all_bodies_together_have_a_limit(serve):
    backend = FakeBackend("wait", Result(caption="done"))
    address = serve(ready(backend), ServerOptions(max_body=1000, max_bodies=1500))
    body = {"image_url": "A" * 800}
    with asked(address, "/v1/caption", body) as first:
        assert backend.waiting.wait(60)
        second = httpx.post(f"{address}/v1/caption", json=body, timeout=60)
        assert second.status_code == 429 and second.headers["retry-after"]
        backend.released.set()
        assert first.recv(100).startswith(b"HTTP/1.1 200")
    assert httpx.post(f"{address}/v1/caption", json=body, timeout=60).status_code == 200
