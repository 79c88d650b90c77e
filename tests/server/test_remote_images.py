"""Pictures whose addresses are in requests: refused, or fetched."""

from __future__ import annotations

import httpx2 as httpx
import pytest

from jaxphoton.bodies.fetching import Fetcher
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from jaxphoton.requests.answer import Result
from jaxphoton.server.service import Service
from tests.batch.site import Site, send
from tests.models.joycaption.drawn import SMALL
from tests.server.serving import FakeBackend

PICTURE = b"as good as a picture"


@pytest.fixture
def site():
    with Site(lambda site, handler, path, number: send(handler, PICTURE)) as site:
        yield site


def fetcher(site):
    return Fetcher(ports={int(site.url.rpartition(":")[2])}, allowed=lambda address: str(address) == "127.0.0.1")


def served(serve, backend, fetch=None):
    service = Service(backend, ["fake"], fetch)
    service.start()
    return serve(service)


def caption(address, url, **more):
    return httpx.post(f"{address}/v1/caption", json={"image_url": url, **more}, timeout=60)


def fault(response):
    error = response.json()["error"]
    return response.status_code, error["param"], error["code"]


@pytest.mark.parametrize("stream", [False, True])
def test_addresses_are_refused_unless_allowed(serve, site, stream):
    backend = FakeBackend()
    response = caption(served(serve, backend), f"{site.url}/a.jpg", stream=stream)
    assert fault(response) == (400, "image_url", "remote_images_off")
    assert "--allow-remote-images" in response.json()["error"]["message"]
    assert site.tries == {} and backend.asked == []


def test_the_model_is_asked_about_what_was_fetched(serve, site):
    backend = FakeBackend(Result(caption="fetched"))
    address = served(serve, backend, fetcher(site).fetch)
    assert caption(address, f"{site.url}/a.jpg").json()["caption"] == "fetched"
    assert [image for image, _ in backend.asked] == [PICTURE]


@pytest.mark.parametrize("stream", [False, True])
def test_none_is_fetched_for_what_the_model_cannot_be_asked(serve, site, stream, monkeypatch):
    backend = FakeBackend()
    monkeypatch.setattr(backend, "family", lambda: JoyCaptionFamily(SMALL))
    address = served(serve, backend, fetcher(site).fetch)
    body = {"image_url": f"{site.url}/a.jpg", "object": "cat", "stream": stream}
    for skill in ("detect", "point", "segment"):
        response = httpx.post(f"{address}/v1/{skill}", json=body, timeout=60)
        assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"
        message = f"this model has no prompt for '{skill}'; it has: caption, query, chat"
        assert response.json()["error"]["message"] == message
    assert caption(address, f"{site.url}/a.jpg", length="endless").status_code == 400
    assert site.tries == {} and backend.asked == []
    assert caption(address, f"{site.url}/a.jpg", stream=stream).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_is_not_fetched_is_the_error_of_its_request(serve, site, stream):
    backend = FakeBackend()
    address = served(serve, backend, fetcher(site).fetch)
    response = caption(address, "http://127.0.0.2/a.jpg", stream=stream)
    assert fault(response) == (400, "image_url", "invalid_image_url")
    assert backend.asked == []


def test_the_deadline_of_a_request_holds_while_its_picture_is_fetched(serve):
    with Site(lambda site, *_: site.over.wait(60)) as site:
        backend = FakeBackend()
        response = caption(served(serve, backend, fetcher(site).fetch), f"{site.url}/a.jpg", timeout=0.1)
        assert fault(response) == (504, None, "deadline_exceeded")
        assert backend.asked == []
