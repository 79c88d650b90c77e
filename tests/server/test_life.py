"""How a server starts and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from jaxphoton.requests.answer import Result
from jaxphoton.requests.errors import ModelClosed
from jaxphoton.server import listening as listening_module
from jaxphoton.server.listening import Listener, bound
from jaxphoton.server.options import ServerOptions
from tests.server.serving import FakeBackend, listening
from tests.server.test_streams import asked, ready, received


@contextmanager
def stoppable(service, **options):
    """An address and what listens there."""
    with bound("127.0.0.1", 0) as place:
        listener = Listener(service, ServerOptions(**options))
        with listening(listener, place) as thread:
            yield f"http://127.0.0.1:{place.getsockname()[1]}", listener, thread


def test_what_is_under_way_is_finished_and_the_rest_refused(caplog):
    backend = FakeBackend({"chunk": "a"}, "wait", Result(caption="a"))
    with stoppable(ready(backend)) as (address, listener, thread):
        with asked(address, "/v1/caption", {"image_url": "AAAA", "stream": True}) as under_way:
            received(under_way, b"chunk")
            listener.stop()
            while (health := httpx.get(f"{address}/health")).status_code == 200:
                pass
            assert health.json()["status"] == "stopping" and "under way (1) have 30 s" in caplog.text
            refused = httpx.post(f"{address}/v1/caption", json={"image_url": "AAAA"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
            backend.released.set()
            assert b'"completed":true' in received(under_way, b"0\r\n\r\n")
        thread.join(60)
        assert not thread.is_alive()
        where = urlsplit(address)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((where.hostname, where.port))


class Ending(FakeBackend):
    """Ends with ModelClosed what is under way when it is closed."""

    def __init__(self):
        super().__init__({"chunk": "a"}, "wait", ModelClosed())


@pytest.mark.parametrize("stream", [True, False])
def test_what_does_not_end_in_time_is_ended(stream):
    backend = Ending()
    with stoppable(ready(backend), grace=0.05) as (address, listener, thread):
        with asked(address, "/v1/caption", {"image_url": "AAAA", "stream": stream}) as under_way:
            if stream:
                received(under_way, b"chunk")
            else:
                assert backend.waiting.wait(60)
            listener.stop()
            if stream:
                with pytest.raises(ConnectionResetError):
                    received(under_way)
            else:
                assert received(under_way, b"}}").startswith(b"HTTP/1.1 503")
        thread.join(60)
        assert not thread.is_alive()


def test_told_twice_it_ends_at_once():
    backend = FakeBackend("wait", Result(caption="never"))
    with stoppable(ready(backend), grace=1000) as (address, listener, thread):
        with asked(address, "/v1/caption", {"image_url": "AAAA"}):
            assert backend.waiting.wait(60)
            listener.stop()
            assert thread.is_alive()
            listener.stop()
            thread.join(60)
            assert not thread.is_alive()


def test_a_body_that_does_not_come_does_not_hold_the_end_up(monkeypatch, caplog):
    monkeypatch.setattr(listening_module, "_LAST_S", 0.0)
    with stoppable(ready(FakeBackend()), grace=0.05) as (address, listener, thread):
        with socket.create_connection(("127.0.0.1", urlsplit(address).port), timeout=60) as half:
            half.sendall(b"POST /v1/caption HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
            while httpx.get(f"{address}/v1/stats").json()["requests"] == 0:
                pass
            listener.stop()
            with pytest.raises(ConnectionResetError):
                half.recv(1)
            thread.join(60)
    assert "Exception" not in caplog.text and "returned without" not in caplog.text


def begun(*options: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "jaxphoton", "serve", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def told(process: subprocess.Popen, word: str) -> str:
    """The line of its stderr that has this word in it."""
    assert process.stderr is not None
    return next(line for line in process.stderr if word in line)


def test_the_command_serves_until_it_is_told_to_stop(picture):
    with begun("--port", "0", "--rows", "2", "--name", "other", JAXPHOTON_API_KEY="one,two") as process:
        try:
            address = told(process, "has a page").split()[2]
            assert httpx.get(f"{address}/health").json()["live"]
            assert "curl" in told(process, "curl")
            assert told(process, "ready").split()[-1] == address
            assert httpx.get(f"{address}/health").json()["ready"]
            assert httpx.get(f"{address}/v1/stats").status_code == 401
            body = {"image_url": picture, "model": "other"}
            answer = httpx.post(f"{address}/v1/caption", json=body, headers={"X-Moondream-Auth": "two"}, timeout=60)
            assert answer.json()["caption"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_told_to_stop_while_it_compiles_it_stops():
    with begun("--port", "0") as process:
        try:
            address = told(process, "has a page").split()[2]
            starting = httpx.post(f"{address}/v1/caption", json={}, timeout=60)
            assert starting.status_code in (400, 503)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_port_that_is_taken_is_said_to_be(capsys):
    from jaxphoton.cli.main import main

    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 1
    assert "cannot listen on 127.0.0.1 port" in capsys.readouterr().err


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://Example.org"])
def test_what_is_no_origin_is_said_to_be(capsys, origin):
    from jaxphoton.cli.main import build_parser

    parser = build_parser()[0]
    with pytest.raises(SystemExit):
        parser.parse_args(["serve", "--cors", origin])
    assert "is no origin" in capsys.readouterr().err
    taken = ["*", "http://localhost:3000", "https://[::1]:8080"]
    assert parser.parse_args(["serve", *(f"--cors={each}" for each in taken)]).cors == taken


@pytest.mark.parametrize("host, warned", [("0.0.0.0", True), ("127.0.0.1", False)])
def test_beyond_this_machine_without_a_key_it_warns(capsys, host, warned):
    from jaxphoton.cli.main import build_parser
    from jaxphoton.cli.serve import _address, _say_where
    from jaxphoton.cli.serve_options import server_options

    args = build_parser()[0].parse_args(["serve", "--host", host])
    _say_where(_address(2020, host), args, server_options(args))
    assert ("WARNING" in capsys.readouterr().err) == warned
