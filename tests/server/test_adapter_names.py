"""Adapters by the name of the model, as clients of each kind ask for them; with a stand-in for the model."""

from __future__ import annotations

import base64
from collections.abc import Callable

import httpx2 as httpx
import pytest
from openai import OpenAI
from PIL import Image

from jaxphoton.requests.adapter_folder import AdapterFolder
from jaxphoton.requests.adapters import AdapterPlaces
from jaxphoton.requests.answer import Result
from jaxphoton.requests.errors import UnknownAdapter, UnusableAdapter
from jaxphoton.server.batching import Batches
from jaxphoton.server.service import Service
from tests.batch.requests.fake import FakeRunModel, request
from tests.server.serving import EXAMPLES, FakeBackend
from tests.server.test_batching import Served, begun, ended, lines_of

MESSAGES = [{"role": "user", "content": "What is it?"}]
MESSAGE = {"role": "assistant", "content": "A cat."}
PICTURE = base64.b64encode(b"pixels").decode()


@pytest.fixture
def places(tmp_path) -> AdapterPlaces:
    """Of one that is registered, and a folder with two."""
    folder = tmp_path / "adapters"
    (folder / "tune" / "120").mkdir(parents=True)
    (folder / "tune" / "120" / "adapter_config.json").touch()
    (folder / "dogs.safetensors").touch()
    (tmp_path / "secret.pt").touch()
    return AdapterPlaces(("cats",), AdapterFolder(folder))


@pytest.fixture
def ask(serve, places) -> Callable[..., tuple[FakeBackend, str]]:
    """Serves a model that answers with the given events."""

    def ask(*events) -> tuple[FakeBackend, str]:
        backend = FakeBackend(*events)
        backend.adapters = places
        service = Service(backend, ["owner/model", "other"])
        service.start()
        return backend, serve(service) + "/v1"

    return ask


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        *((None, None), ("model", None), ("owner/model/cats", "cats"), ("model/cats", "cats"), ("other/dogs", "dogs")),
        *(("moondream3-preview/tune@120", "tune@120"), ("owner/model/tune@120", "tune@120")),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_with_an_adapter(ask, name, adapter, stream):
    backend, address = ask()
    body = {"image_url": PICTURE, "model": name, "stream": stream}
    assert httpx.post(f"{address}/caption", json=body).status_code == 200
    assert [each.adapter for _, each in backend.asked] == [adapter]


@pytest.mark.parametrize("key", ["adapter", "variant"])
def test_settings_of_a_chat_with_an_adapter(ask, key):
    backend, address = ask(Result(message=MESSAGE))
    client = OpenAI(base_url=address, api_key="any", max_retries=0)
    for model in ("model", "model/cats"):
        body = {"settings": {key: "cats", "unknown": 1}}
        answer = client.chat.completions.create(model=model, messages=MESSAGES, extra_body=body)  # type: ignore[arg-type]
        assert answer.model == "owner/model/cats" and backend.asked[-1][1].adapter == "cats"


@pytest.mark.parametrize("key", ["adapter", "variant"])
def test_settings_with_an_adapter(ask, key):
    backend, address = ask()
    body = {"image_url": PICTURE, "settings": {key: "cats", "seed": 1}}
    assert httpx.post(f"{address}/caption", json=body).status_code == 200
    ((_, asked),) = backend.asked
    assert (asked.adapter, asked.settings) == ("cats", {"seed": 1})
    same = {**body, "model": "model/cats"}
    assert httpx.post(f"{address}/caption", json=same).status_code == 200 and backend.asked[-1][1] == asked


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "model/cats", "settings": {"adapter": "dogs"}}, "model"),
        ({"settings": {"adapter": "cats", "variant": "dogs"}}, "settings"),
        ({"settings": {"adapter": 3}}, "settings"),
        ({"settings": {"variant": ""}}, "settings"),
    ],
)
@pytest.mark.parametrize("route", ["caption", "chat/completions"])
def test_names_that_cannot_be_answered(ask, route, body, param):
    backend, address = ask()
    answer = httpx.post(f"{address}/{route}", json={"image_url": PICTURE, "messages": MESSAGES, **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param) and not backend.asked


@pytest.mark.parametrize(
    "name",
    ["model/birds", "model/", "cats", "else/cats", "model/../secret", "model/..@secret", "model//dogs", "model/tune"],
)
@pytest.mark.parametrize("route", ["caption", "chat/completions"])
def test_what_is_not_there(ask, name, route):
    backend, address = ask()
    answer = httpx.post(f"{address}/{route}", json={"image_url": PICTURE, "messages": MESSAGES, "model": name})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (
        404,
        "model_not_found",
        "model",
    ) and not backend.asked
    assert "owner/model, other, owner/model/cats, owner/model/dogs, owner/model/tune@120" in error["message"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (UnknownAdapter("no adapter 'x' here"), 404, "model_not_found"),
        (UnusableAdapter("/a/b: bad"), 500, "adapter_unusable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_model_finds_out(ask, fault, status, code, stream):
    _, address = ask(fault)
    body = {"image_url": PICTURE, "settings": {"adapter": "x"}, "stream": stream}
    answer = httpx.post(f"{address}/caption", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code) and "/a/b" not in answer.text


def test_openais_client_sees_and_asks_them(ask):
    backend, address = ask(Result(message=MESSAGE))
    client = OpenAI(base_url=address, api_key="any", max_retries=0)
    names = [model.id for model in client.models.list()]
    assert names == ["owner/model", "other", "owner/model/cats", "owner/model/dogs", "owner/model/tune@120"]
    assert client.models.retrieve("owner/model/tune@120").owned_by == "jaxphoton"
    for name in ("model/tune@120", "model"):
        answer = client.chat.completions.create(model=name, messages=MESSAGES)  # type: ignore[arg-type]
        assert answer.model == f"owner/{name}"
    assert [each.adapter for _, each in backend.asked] == ["tune@120", None]


def test_moondreams_client_asks_them(ask):
    moondream = pytest.importorskip("moondream", reason="pip install --no-deps moondream: its client is NOT tested")
    backend, address = ask(Result(message=MESSAGE, answer="A cat."))
    client = moondream.vl(endpoint=address, model="moondream3-preview/tune@120")
    image = Image.open(EXAMPLES / "scene_01.png")
    assert client.query(image, "What is it?")["answer"] == client.chat(MESSAGES)["message"]["content"] == "A cat."
    assert [each.adapter for _, each in backend.asked] == ["tune@120"] * 2


def test_lines_of_a_batch(ask, tmp_path, places):
    backend = FakeBackend()
    backend.adapters = places
    service = Service(backend, ["owner/model"])
    lines = [request(name, image_url=PICTURE, model=f"model/{name}") for name in ("cats", "tune@120", "birds")]
    lines += [request("variant", image_url=PICTURE, settings={"variant": "dogs"})]
    model = FakeRunModel()
    with Batches(tmp_path / "data", Served(model), service.models.resolve, name=service.name) as batches:
        batch = ended(batches, begun(batches, tmp_path, lines))
        (failed,) = lines_of(batches, batch["error_file_id"])
    assert [job.asks[0].adapter for job in model.jobs] == ["cats", "tune@120", "dogs"]
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("birds", 404)
    assert failed["error"]["code"] == "model_not_found"


def test_an_answer_of_a_batch_is_called_by_its_adapter(tmp_path, places):
    backend = FakeBackend()
    backend.adapters = places
    service, chat = Service(backend, ["owner/model"]), "/v1/chat/completions"
    lines = [request(name, chat, messages=MESSAGES, model=name) for name in ("model/cats", "model")]
    with Batches(tmp_path / "data", Served(), service.models.resolve, name=service.name) as batches:
        batch = ended(batches, begun(batches, tmp_path, lines, chat))
        answers = lines_of(batches, batch["output_file_id"])
    assert [line["response"]["body"]["model"] for line in answers] == ["owner/model/cats", "owner/model"]
