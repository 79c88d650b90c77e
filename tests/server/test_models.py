"""What models there are."""

from __future__ import annotations

import httpx2 as httpx
import pytest

from jaxphoton.server.service import Service
from tests.server.serving import FakeBackend

NAMES = ["moondream/moondream 2", "local"]


@pytest.fixture
def models(serve) -> str:
    service = Service(FakeBackend(), NAMES)
    service.start()
    return serve(service) + "/v1/models"


def test_both_forms_of_a_list(models):
    listed = httpx.get(models).json()
    assert listed["object"] == "list" and listed["data"] == listed["models"]
    assert [model["id"] for model in listed["data"]] == [model["name"] for model in listed["models"]] == NAMES


@pytest.mark.parametrize("path", ["moondream%2Fmoondream%202", "moondream/moondream%202"])
def test_a_name_with_a_slash_is_found(models, path):
    assert httpx.get(f"{models}/{path}").json()["id"] == NAMES[0]


def test_what_the_model_can_be_asked(address):
    """The shipped model draws no outlines."""
    (model,) = httpx.get(f"{address}/v1/models").json()["data"]
    assert {"caption", "query", "detect", "point"} == set(model["skills"]) and model["reasoning"] is True


def test_another_name_is_not_found(models):
    response = httpx.get(f"{models}/gpt-4")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found" and NAMES[0] in response.json()["error"]["message"]
