"""Servers for the tests of this folder; see `serving`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from jaxphoton.server.app import DEFAULTS
from jaxphoton.server.backend import LocalBackend
from jaxphoton.server.batching import Batches
from jaxphoton.server.options import ServerOptions
from jaxphoton.server.service import Service
from tests.server.serving import EXAMPLES, QUESTION, FakeBackend, data_address, served


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory) -> Iterator[None]:
    """Servers that are started keep their files there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def service(shapes) -> Service:
    """Of the shipped model; compiled once."""
    service = Service(LocalBackend(shapes), ["shapes"])
    service.start()
    return service


@pytest.fixture(scope="session")
def stored(service, tmp_path_factory) -> Iterator[Batches]:
    """Files and batches of that server."""
    with Batches(
        tmp_path_factory.mktemp("data") / "data",
        service.backend,
        service.models.resolve,
        name=service.name,
    ) as batches:
        yield batches


@pytest.fixture(scope="session")
def address(service, stored) -> Iterator[str]:
    """Of a server with the shipped model, without a path."""
    with served(service, stored=stored) as address:
        yield address


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves any service until the end of the test, with options if need be; returns its address."""
    with ExitStack() as stack:
        yield lambda service, options=DEFAULTS, stored=None: stack.enter_context(served(service, options, stored))


@pytest.fixture(scope="session")
def picture() -> str:
    """A data address of a picture of shapes."""
    return data_address(EXAMPLES / "scene_01.png")


@pytest.fixture
def about(picture) -> Any:
    """Messages that ask a question about the picture, for OpenAI's clients."""
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": QUESTION}]
    return [{"role": "user", "content": content}]


@pytest.fixture
def answering(serve) -> Callable[..., tuple[str, FakeBackend]]:
    """Serves a model that answers with the given events; returns the address of the routes, and what is asked."""

    def answering(*events, options: ServerOptions = DEFAULTS) -> tuple[str, FakeBackend]:
        backend = FakeBackend(*events)
        service = Service(backend, ["fake"])
        service.start()
        return serve(service, options) + "/v1", backend

    return answering
