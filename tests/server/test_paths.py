"""Paths as clients write them."""

from __future__ import annotations

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.server.paths import plain_path
from jaxphoton.server.service import Service
from tests.server.serving import FakeBackend

RAW = st.lists(st.sampled_from(["/", "//", "v1", "models", "%2F", "%2f", "%", "a", "%C3%A9", "%00", ".."])).map("".join)


@given(RAW)
def test_only_what_is_behind_models_gains_a_slash(raw):
    path = plain_path("/" + raw)
    if not path.startswith("/v1/models/"):
        assert "//" not in path
        assert path.count("/") <= ("/" + raw).count("/")


@pytest.mark.parametrize(
    "raw, path",
    [
        ("/v1//caption", "/v1/caption"),
        ("///v1///caption", "/v1/caption"),
        ("/v1/models/a%2Fb%20c", "/v1/models/a/b c"),
        ("/v1/models/a/b", "/v1/models/a/b"),
        ("//v1//models//a%2Fb", "/v1/models/a/b"),
        ("/v1%2Fcaption", "/v1%2Fcaption"),
        ("/v1/files/a%2F..%2Fb", "/v1/files/a%2F..%2Fb"),
        ("/v1/c%61ption", "/v1/caption"),
        ("/v1/caption/", "/v1/caption"),
        ("/v1/models//", "/v1/models"),
        ("/v1/models/a%2F/", "/v1/models/a/"),
        ("//", "/"),
    ],
)
def test_paths(raw, path):
    assert plain_path(raw) == path


@pytest.fixture
def address(serve) -> str:
    service = Service(FakeBackend(), ["owner/model", "short name"])
    service.start()
    return serve(service)


def test_an_address_that_ends_with_a_slash_works(address):
    """The `moondream` client then asks for /v1//caption."""
    assert httpx.post(f"{address}/v1//caption", json={"image_url": "AAAA"}).status_code == 200


def test_nobody_is_sent_elsewhere(address):
    """Clients take a redirect for an error, or ask again without the body."""
    assert httpx.post(f"{address}/v1/caption/", json={"image_url": "AAAA"}).status_code == 200
    assert httpx.get(f"{address}/v1/models/").json()["object"] == "list"
    assert httpx.get(f"{address}/health%2F").status_code == 404


def test_what_is_not_there_is_told_whatever_the_server_is_called(address):
    for host in ("[", "a b", ""):
        assert httpx.get(f"{address}/nowhere", headers={"Host": host}).status_code == 404


@pytest.mark.parametrize("path", ["owner/model", "owner%2Fmodel", "short%20name"])
def test_models_are_found_by_their_encoded_names(address, path):
    assert httpx.get(f"{address}/v1/models/{path}").json()["object"] == "model"


@pytest.mark.parametrize("name", [None, "", "owner/model", "model", "short name", "moondream3-preview"])
def test_names_of_the_model_are_taken(address, name):
    assert httpx.post(f"{address}/v1/caption", json={"image_url": "AAAA", "model": name}).status_code == 200


@pytest.mark.parametrize(
    "name, status, code",
    [
        ("other", 404, "model_not_found"),
        ("owner", 404, "model_not_found"),
        ("model/tuned@12", 404, "model_not_found"),
        ("model/tuned@x", 404, "model_not_found"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_other_models_are_not_here(address, name, status, code, stream):
    body = {"image_url": "AAAA", "model": name, "stream": stream}
    answer = httpx.post(f"{address}/v1/caption", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, "model")
    assert "owner/model, short name" in error["message"]


@pytest.mark.parametrize(
    "method, path, status", [("GET", "/nowhere", 404), ("GET", "/v1/caption", 405), ("PUT", "/health", 405)]
)
def test_what_is_not_there_has_an_error_of_the_form(address, method, path, status):
    answer = httpx.request(method, address + path)
    assert answer.status_code == status and set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert status == 404 or answer.headers["allow"]
