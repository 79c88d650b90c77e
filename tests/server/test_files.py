"""Files and batches over HTTP, as OpenAI's client asks and as others might."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import httpx2 as httpx
import pytest

from jaxphoton.server.batching import Batches
from jaxphoton.server.options import MIB, ServerOptions
from tests.batch.requests.fake import request, write
from tests.image.pools import until
from tests.server.serving import EXAMPLES, FakeBackend, data_address
from tests.server.test_batching import Served
from tests.server.test_streams import ready

ROOT = Path(__file__).parents[2]
LINE = json.dumps(request("a")).encode() + b"\n"


@pytest.fixture
def address(serve, tmp_path):
    """Of a server that keeps files of up to 4 MiB."""
    with Batches(tmp_path / "data", Served()) as stored:
        yield serve(ready(FakeBackend()), ServerOptions(max_body=1000, max_file=4 * MIB), stored)


def upload(address: str, content: bytes = LINE, name: str = "in.jsonl", purpose: str = "batch") -> httpx.Response:
    return httpx.post(f"{address}/v1/files", data={"purpose": purpose}, files={"file": (name, content)}, timeout=60)


def test_a_file_is_kept_told_of_given_back_and_deleted(address, tmp_path):
    told = upload(address, b"\0\xff" * 5000, "../../etc/ñ.jsonl").json()
    assert (told["bytes"], told["filename"], told["purpose"]) == (10_000, "../../etc/ñ.jsonl", "batch")
    place = f"{address}/v1/files/{told['id']}"
    assert httpx.get(place).json() == told
    content = httpx.get(f"{place}/content")
    assert content.content == b"\0\xff" * 5000 and content.headers["content-disposition"] == "attachment"
    assert content.headers["content-type"] == "application/octet-stream"
    assert {path.name for path in (tmp_path / "data" / "files").iterdir()} == {told["id"], f"{told['id']}.json"}
    assert httpx.delete(place).json() == {"id": told["id"], "object": "file", "deleted": True}
    assert httpx.get(place).status_code == 404 and not list((tmp_path / "data" / "files").iterdir())


@pytest.mark.parametrize("part", ["bytes=0-1", "bytes=99-", "bytes=z", "lines=1-2"])
def test_a_file_is_given_back_whole(address, part):
    place = f"{address}/v1/files/{upload(address, b'0123').json()['id']}/content"
    answer = httpx.get(place, headers={"Range": part})
    assert (answer.status_code, answer.content, answer.headers["accept-ranges"]) == (200, b"0123", "none")


def test_lists_have_pages_the_newest_first(address):
    ids = [upload(address).json()["id"] for _ in range(5)][::-1]
    found, after = [], None
    while True:
        page = httpx.get(f"{address}/v1/files", params={"limit": 2} | ({"after": after} if after else {})).json()
        found += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert found == ids
    assert httpx.get(f"{address}/v1/files", params={"purpose": "batch_output"}).json()["data"] == []
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"limit": "9" * 50}, {"after": "file-nothing"}):
        answer = httpx.get(f"{address}/v1/files", params=wrong)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, *wrong)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"json": {"purpose": "batch"}}, None),
        ({"data": {"purpose": "batch", "file": "x"}}, None),  # a form, and not one with files
        ({"files": {"file": ("a", b"x")}}, "purpose"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "vision"}}, "purpose"),
        ({"files": {"purpose": (None, "batch"), "other": ("a", b"x")}}, "file"),
        ({"files": {"purpose": (None, "batch"), "file": (None, "text")}}, "file"),
        ({"files": {"purpose": (None, "batch"), "file": ("a", b"")}}, "file"),
        ({"files": [("purpose", (None, "batch")), ("file", ("a", b"x")), ("file", ("b", b"x"))]}, None),
        ({"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "purpose"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, None),
    ],
)
def test_what_is_no_upload_is_refused(address, tmp_path, arguments, param):
    answer = httpx.post(f"{address}/v1/files", timeout=60, **arguments)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not list((tmp_path / "data" / "files").iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_that_is_too_large_is_refused_while_it_comes(address, tmp_path, chunked):
    head = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    head += b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    parts = [head, *[b"y" * MIB] * 5, b"\r\n--x--\r\n"]
    content = iter(parts) if chunked else b"".join(parts)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{address}/v1/files", content=content, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert not list((tmp_path / "data" / "files").iterdir())
    assert upload(address, b"y" * 4 * MIB).status_code == 200
    # Other bodies are as small as they were.
    assert httpx.post(f"{address}/v1/batches", content=b"x" * 2000).status_code == 413


def test_a_file_is_not_held_in_memory(serve, tmp_path):
    with Batches(tmp_path / "data", Served()) as stored:
        address = serve(ready(FakeBackend()), ServerOptions(max_bodies=MIB), stored)
        part, head = b"z" * MIB, b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        head += b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

        def parts():
            yield head
            for _ in range(64):
                yield part
            yield b"\r\n--x--\r\n"

        tracemalloc.start()
        try:
            headers = {"content-type": "multipart/form-data; boundary=x"}
            answer = httpx.post(f"{address}/v1/files", content=parts(), headers=headers, timeout=120)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer.json()["bytes"] == 64 * MIB and peak < 16 * MIB


@pytest.mark.parametrize("number", ["file-1", "..%2F..%2Fetc%2Fpasswd", "%2e%2e", "file-" + "a" * 32, "lock", "%00"])
def test_ids_become_no_paths(address, number):
    for answer in (
        httpx.get(f"{address}/v1/files/{number}"),
        httpx.get(f"{address}/v1/files/{number}/content"),
        httpx.delete(f"{address}/v1/files/{number}"),
        httpx.get(f"{address}/v1/batches/{number}"),
        httpx.post(f"{address}/v1/batches/{number}/cancel"),
        httpx.post(f"{address}/v1/batches", json={"input_file_id": number, "endpoint": "/v1/caption"}),
    ):
        assert answer.status_code in (404, 405) and answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"endpoint": "/v1/caption"}, "input_file_id"),
        ({"input_file_id": "x", "endpoint": "/v1/embeddings"}, "endpoint"),
        ({"input_file_id": 7, "endpoint": "/v1/caption"}, "input_file_id"),
        ({"input_file_id": "x", "endpoint": "/v1/caption", "metadata": {"a": 1}}, "metadata[...]"),
    ],
)
def test_what_is_no_batch_is_refused(address, body, param):
    answer = httpx.post(f"{address}/v1/batches", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_server_without_a_folder_has_no_files(serve):
    address = serve(ready(FakeBackend()))
    assert httpx.get(f"{address}/v1/files").status_code == 404


def test_the_client_of_openai_uploads_waits_and_reads(address):
    openai = pytest.importorskip("openai", reason="openai is not installed: files and batches NOT tried with it")
    with openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client:
        file = client.files.create(file=("in.jsonl", LINE + b"{\n"), purpose="batch")
        assert client.files.retrieve(file.id) == file and file.status == "processed"
        batches = [
            client.batches.create(input_file_id=file.id, endpoint="/v1/caption", completion_window="24h")
            for _ in range(3)
        ]
        for batch in batches:
            until(lambda batch=batch: client.batches.retrieve(batch.id).status == "completed", "the end of a batch")
        batch = client.batches.retrieve(batches[0].id)
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (2, 1, 1)
        line = json.loads(client.files.content(batch.output_file_id).text)
        assert (line["custom_id"], line["response"]["body"]["caption"], line["error"]) == ("a", "a", None)
        assert json.loads(client.files.content(batch.error_file_id).read())["response"]["status_code"] == 400
        assert [each.id for each in client.batches.list(limit=2)] == [each.id for each in batches[::-1]]
        assert [each.id for each in client.files.list(purpose="batch")] == [file.id]
        assert len(list(client.files.list())) == 7
        with pytest.raises(openai.BadRequestError, match="completed already"):
            client.batches.cancel(batch.id)
        assert client.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(file.id)


def test_a_killed_server_goes_on_with_its_batch_and_has_every_line_once(tmp_path):
    picture, data = data_address(EXAMPLES / "scene_01.png"), tmp_path / "data"
    settings = {"temperature": 0, "max_tokens": 30}
    lines = [request(str(number), image_url=picture, length="long", settings=settings) for number in range(120)]
    lines[50] = request("50", image_url="data:,nothing")
    process, address = started(data)
    try:
        file = upload(address, write(tmp_path / "in.jsonl", lines).read_bytes()).json()["id"]
        body = {"input_file_id": file, "endpoint": "/v1/caption"}
        number = httpx.post(f"{address}/v1/batches", json=body).json()["id"]
        until(lambda: counts(address, number)["completed"] >= 10, "ten answers")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (journal,) = (data / "batches").glob("*.journal")
    done = journal.read_bytes().count(b"\n") - 1
    assert 10 <= done < 120
    process, address = started(data)
    try:
        until(
            lambda: httpx.get(f"{address}/v1/batches/{number}").json()["status"] == "completed", "the end of the batch"
        )
        batch = httpx.get(f"{address}/v1/batches/{number}").json()
        assert batch["request_counts"] == {"total": 120, "completed": 119, "failed": 1}
        answers = httpx.get(f"{address}/v1/files/{batch['output_file_id']}/content").text.splitlines()
        found = [json.loads(line) for line in answers]
        assert [line["custom_id"] for line in found] == [str(each) for each in range(120) if each != 50]
        errors = httpx.get(f"{address}/v1/files/{batch['error_file_id']}/content").text.splitlines()
        assert [json.loads(line)["custom_id"] for line in errors] == ["50"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def counts(address: str, number: str) -> dict:
    return httpx.get(f"{address}/v1/batches/{number}").json()["request_counts"]


def started(data: Path) -> tuple[subprocess.Popen, str]:
    """A server with the shipped model, ready or about to be."""
    command = [sys.executable, "-m", "jaxphoton", "serve", "--port", "0", "--data", str(data)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, found[0]
    raise AssertionError("it did not start")
