"""Who may ask: keys, names of the server, pages of other sites."""

from __future__ import annotations

import logging

import httpx2 as httpx
import pytest

from jaxphoton.server.access import LOOPBACK
from jaxphoton.server.app import all_operations
from jaxphoton.server.options import ServerOptions
from tests.server.serving import FakeBackend
from tests.server.test_streams import ready

BODY = {"image_url": "AAAA"}


@pytest.fixture
def locked(serve) -> str:
    return serve(ready(FakeBackend()), ServerOptions(keys=("first", "second")))


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first"},
        {"Authorization": "bearer second"},
        {"X-Moondream-Auth": "second"},
        {"Authorization": "Bearer wrong", "X-Moondream-Auth": "first"},
    ],
)
def test_any_key_in_either_header_opens(locked, headers):
    assert httpx.post(f"{locked}/v1/caption", json=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "first"},
        {"Authorization": "Basic first"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer firs"},
        {"X-Moondream-Auth": "first "[:3]},
        {b"X-Moondream-Auth": b"\xff\xfe"},
    ],
)
def test_nothing_else_does(locked, headers):
    for method, path in (("POST", "/v1/caption"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/nowhere")):
        answer = httpx.request(method, locked + path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_page_and_health_are_open(locked):
    assert [httpx.get(locked + path).status_code for path in ("/", "/health", "/openapi.json")] == [200] * 3
    assert httpx.post(f"{locked}/health").status_code == 401


def test_only_a_few_routes_are_open():
    told = {each.path for each in all_operations(ready(FakeBackend()), ServerOptions()) if each.described.open}
    assert told == {"/", "/page/{name}", "/health", "/openapi.json"}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.", "[::2]", "2130706433", ""])
def test_other_names_are_refused_on_loopback(serve, host):
    address = serve(ready(FakeBackend()), ServerOptions(hosts=LOOPBACK))
    answer = httpx.get(f"{address}/health", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:2020", "[::1]"])
def test_names_of_this_machine_are_taken(serve, host):
    address = serve(ready(FakeBackend()), ServerOptions(hosts=LOOPBACK))
    assert httpx.get(f"{address}/health", headers={"Host": host}).status_code == 200


def test_pages_of_other_sites_may_not_ask(serve):
    backend = FakeBackend()
    address = serve(ready(backend))
    for origin in (
        "http://evil.example",
        "null",
        "http://[",
        "http://[::1",
        "",
        address.replace("127", "128"),
        f"{address}0",
    ):
        answer = httpx.post(f"{address}/v1/caption", json=BODY, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in answer.headers
    assert not backend.asked
    assert httpx.post(f"{address}/v1/caption", json=BODY, headers={"Origin": address}).status_code == 200


def test_pages_may_ask_that_were_named(serve):
    page = "https://page.example"
    address = serve(ready(FakeBackend()), ServerOptions(origins=(page,), keys=("key",)))
    asked = {"Origin": page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    before = httpx.options(f"{address}/v1/caption", headers=asked)
    assert before.status_code == 200 and before.headers["access-control-allow-origin"] == page
    refused = httpx.post(f"{address}/v1/caption", json=BODY, headers={"Origin": page})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == page
    taken = httpx.post(f"{address}/v1/caption", json=BODY, headers={"Origin": page, "Authorization": "Bearer key"})
    assert taken.status_code == 200 and taken.headers["access-control-allow-origin"] == page
    assert httpx.get(f"{address}/health", headers={"Origin": "https://other.example"}).status_code == 403


def test_no_body_key_or_picture_is_logged(serve, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    options = ServerOptions(keys=("the-key",), access_log=True)
    address = serve(ready(FakeBackend(KeyError("AAAASECRET"))), options)
    for body in ({"image_url": "AAAASECRET"}, {"image_url": ["AAAASECRET"]}):
        httpx.post(f"{address}/v1/caption?AAAASECRET", json=body, headers={"X-Moondream-Auth": "the-key"})
        httpx.post(f"{address}/v1/AAAASECRET", json=body, headers={"Authorization": "Bearer AAAASECRET"})
    httpx.get(f"{address}/health", headers={"Host": "a b"})
    said = "".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    )
    out, err = capfd.readouterr()
    assert "POST /v1/caption 500" in said and "POST /v1/caption failed: KeyError" in said and "serving.py" in said
    for text in (said, out, err):
        assert "SECRET" not in text and "the-key" not in text
