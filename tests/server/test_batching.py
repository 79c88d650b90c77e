"""Batches of a server: their states, what is on the disk, and starting again; with a stand-in for the model."""

from __future__ import annotations

import argparse
import errno
import json
import threading
from typing import Any

import httpx2 as httpx
import pytest

from jaxphoton.bodies.faults import BodyError
from jaxphoton.cli.base import CommandError
from jaxphoton.cli.serve import _stored
from jaxphoton.requests.errors import EngineError
from jaxphoton.server.batch_states import ENDED
from jaxphoton.server.batching import PRIORITY, Batches
from tests.batch.requests.fake import FakeRunModel, request, write
from tests.image.pools import until
from tests.server.serving import FakeBackend
from tests.server.test_streams import ready

pytestmark = pytest.mark.smoke


class Served:
    """What answers batches."""

    batch_requests = None

    def __init__(self, model: FakeRunModel | None = None):
        self.model = model or FakeRunModel()

    def run_model(self) -> Any:
        return self.model


def uploaded(batches: Batches, tmp_path, lines) -> str:
    with open(write(tmp_path / "upload.jsonl", lines), "rb") as file:
        return batches.files.add(file, "../my requests.jsonl", "batch")["id"]


def begun(batches: Batches, tmp_path, lines, endpoint: str = "/v1/caption") -> str:
    return batches.create(endpoint, uploaded(batches, tmp_path, lines), "24h", {"for": "me"})["id"]


def ended(batches: Batches, number: str) -> dict:
    until(lambda: batches.states.get(number)["status"] in ENDED, "the end of a batch")
    return batches.states.get(number)


def lines_of(batches: Batches, file: str) -> list[dict]:
    return [json.loads(line) for line in batches.files.path(file).read_bytes().splitlines()]


def names(folder) -> set[str]:
    return {path.name for part in ("files", "batches") for path in (folder / part).iterdir()}


def test_answers_and_errors_become_files(tmp_path):
    lines = [request("a"), "{", request("b"), request("c", "/v1/query", question="?")]
    with Batches(tmp_path / "data", Served(model := FakeRunModel())) as batches:
        batch = ended(batches, begun(batches, tmp_path, lines))
        assert (batch["status"], batch["metadata"]) == ("completed", {"for": "me"})
        assert batch["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
        assert [line["custom_id"] for line in lines_of(batches, batch["output_file_id"])] == ["a", "b"]
        assert [line["custom_id"] for line in lines_of(batches, batch["error_file_id"])] == [None, "c"]
        told = batches.files.records.get(batch["output_file_id"])
        assert told["purpose"] == "batch_output" and told["bytes"] > 0
        times = [batch[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")]
        assert times == sorted(times)
    assert not list((tmp_path / "data" / "batches").glob("*.journal"))
    assert [(job.asks[0].priority, job.asks[0].deadline) for job in model.jobs] == [(PRIORITY, None)] * 2


def test_there_is_no_file_where_nothing_is_in_it(tmp_path):
    with Batches(tmp_path / "data", Served()) as batches:
        good = ended(batches, begun(batches, tmp_path, [request("a")]))
        bad = ended(batches, begun(batches, tmp_path, ["{"]))
    assert good["output_file_id"] and "error_file_id" not in good
    assert bad["error_file_id"] and "output_file_id" not in bad


def test_what_was_under_way_goes_on_with_the_next_start(tmp_path, caplog):
    lines = [request(str(number)) for number in range(10)]
    broken = FakeRunModel(lambda job: EngineError("no memory") if job.name == "6" else None)
    with Batches(tmp_path / "data", Served(broken)) as batches:
        first = begun(batches, tmp_path, lines)
        second = begun(batches, tmp_path, [request("next")])
        batches._thread.join(60)
        assert (batches.states.get(first)["status"], batches.states.get(second)["status"]) == (
            "in_progress",
            "validating",
        )
    (tmp_path / "data" / "files" / ".file-00.tmp").write_bytes(b"half")
    (tmp_path / "data" / "files" / f"file-{'0' * 32}").write_bytes(b"of a process that ended")
    (tmp_path / "data" / "batches" / f"batch_{'0' * 32}.json").write_bytes(b"\0")
    with Batches(tmp_path / "data", Served(model := FakeRunModel())) as batches:
        assert ended(batches, first)["request_counts"] == {"total": 10, "completed": 10, "failed": 0}
        assert ended(batches, second)["status"] == "completed"
        wanted = [str(number) for number in range(10)]
        assert [line["custom_id"] for line in lines_of(batches, ended(batches, first)["output_file_id"])] == wanted
    # Answers come in reverse order within each four: the first four were done, of the next only the last.
    assert [job.name for job in model.jobs] == ["4", "5", "6", "8", "9", "next"]
    assert not names(tmp_path / "data") & {".file-00.tmp", f"file-{'0' * 32}"} and "is damaged" in caplog.text


def test_one_that_runs_and_one_that_waits_are_cancelled(tmp_path):
    waiting, released = threading.Event(), threading.Event()

    def answer(job):
        if job.name == "4":
            waiting.set()
            assert released.wait(60)

    with Batches(tmp_path / "data", Served(FakeRunModel(answer))) as batches:
        runs = begun(batches, tmp_path, [request(str(number)) for number in range(20)])
        waits = begun(batches, tmp_path, [request("x")])
        assert waiting.wait(60)
        assert batches.cancel(waits)["status"] == "cancelled"
        assert batches.cancel(runs)["status"] == "cancelling" == batches.cancel(runs)["status"]
        released.set()
        batch = ended(batches, runs)
        assert batch["status"] == "cancelled" and batch["request_counts"]["total"] == 20
        answered = lines_of(batches, batch["output_file_id"])
        assert 4 <= len(answered) == batch["request_counts"]["completed"] < 20
        for number in (runs, waits):
            with pytest.raises(BodyError, match="cancelled already"):
                batches.cancel(number)


def test_a_server_that_is_told_to_stop_leaves_it_for_the_next_start(tmp_path):
    stopping = threading.Event()
    model = FakeRunModel(lambda job: stopping.set() if job.name == "6" else None)
    with Batches(tmp_path / "data", Served(model), ending=stopping.is_set) as batches:
        number = begun(batches, tmp_path, [request(str(number)) for number in range(20)])
        until(lambda: (tmp_path / "data" / "batches" / f"{number}.journal").exists() and stopping.is_set(), "a stop")
    with Batches(tmp_path / "data", Served(after := FakeRunModel())) as batches:
        batch = ended(batches, number)
        answers = lines_of(batches, batch["output_file_id"])
        assert [line["custom_id"] for line in answers] == [str(number) for number in range(20)]
    assert 0 < len(after.jobs) < 20


def test_a_disk_that_is_full_is_waited_for_until_the_next_start(tmp_path, monkeypatch, caplog, serve):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Batches(tmp_path / "data", Served()) as batches:
        with monkeypatch.context() as patch:
            patch.setattr("jaxphoton.server.batching.run_requests", full)
            number = begun(batches, tmp_path, [request("a")])
            batches._thread.join(60)
        assert "wait for the next start" in caplog.text and batches.states.get(number)["status"] == "validating"
        monkeypatch.setattr("jaxphoton.server.storage.shutil.copyfileobj", full)
        with pytest.raises(BodyError, match="the disk of the server is full") as caught:
            uploaded(batches, tmp_path, [request("a")])
        assert caught.value.status == 507
        with monkeypatch.context() as patch:
            patch.setattr("jaxphoton.server.storage.os.fsync", full)
            address = serve(ready(FakeBackend()), stored=batches)
            assert httpx.post(f"{address}/v1/batches/{number}/cancel").status_code == 507
    with Batches(tmp_path / "data", Served()) as batches:
        assert ended(batches, number)["status"] == "completed"


def test_another_model_does_not_go_on_with_it(tmp_path):
    lines = [request(str(number)) for number in range(10)]
    broken = FakeRunModel(lambda job: EngineError("no") if job.name == "6" else None)
    with Batches(tmp_path / "data", Served(broken)) as batches:
        number = begun(batches, tmp_path, lines)
        batches._thread.join(60)
    other = FakeRunModel()
    other.digest = lambda: "another"
    with Batches(tmp_path / "data", Served(other)) as batches:
        batch = ended(batches, number)
        assert batch["status"] == "failed" and "model was" in batch["errors"]["data"][0]["message"]
        assert ended(batches, begun(batches, tmp_path, lines))["status"] == "completed"


def test_a_surprise_fails_one_batch(tmp_path, caplog):
    def answer(job):
        if job.name == "a":
            raise KeyError("secret")

    with Batches(tmp_path / "data", Served(FakeRunModel(answer))) as batches:
        failed = ended(batches, begun(batches, tmp_path, [request("a")]))
        assert failed["status"] == "failed" and "secret" not in str(failed["errors"])
        assert ended(batches, begun(batches, tmp_path, [request("b")]))["status"] == "completed"
    assert "a batch failed" in caplog.text


def test_bodies_are_checked_and_no_file_of_the_machine_is_read(tmp_path):
    def check(body):
        if body.model == "other":
            raise BodyError("no such model", "model", status=404)
        return body

    (tmp_path / "a.png").write_bytes(b"x")
    lines = [
        request("model", image_url="AAAA", model="other"),
        request("path", image_url=str(tmp_path / "a.png")),
        request("file", image_url=f"file://{tmp_path}/a.png"),
        request("web", image_url="http://127.0.0.1/a.png"),
    ]
    with Batches(tmp_path / "data", Served(model := FakeRunModel()), check) as batches:
        batch = ended(batches, begun(batches, tmp_path, lines))
        errors = lines_of(batches, batch["error_file_id"])
    assert [line["response"]["status_code"] for line in errors] == [404, 400, 400, 400] and not model.jobs


def test_a_file_is_kept_for_as_long_as_a_batch_reads_it(tmp_path):
    waiting, released = threading.Event(), threading.Event()

    def answer(job):
        waiting.set()
        assert released.wait(60)

    with Batches(tmp_path / "data", Served(FakeRunModel(answer))) as batches:
        number = begun(batches, tmp_path, [request("a")])
        file = batches.states.get(number)["input_file_id"]
        assert waiting.wait(60)
        with pytest.raises(BodyError, match="still reads"):
            batches.remove_file(file)
        released.set()
        ended(batches, number)
        batches.remove_file(file)
        assert file not in batches.files.records and not batches.files.path(file).exists()
        with pytest.raises(BodyError, match="there is no"):
            batches.create("/v1/caption", file, "24h", None)


def test_a_folder_is_for_one_process(tmp_path):
    with Batches(tmp_path / "data", Served()):
        with pytest.raises(BlockingIOError):
            Batches(tmp_path / "data", Served()).__enter__()
    with Batches(tmp_path / "data", Served()):
        pass


def test_a_command_without_a_folder_of_its_own_goes_without(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    args = argparse.Namespace(port=2020, data=None, allow_remote_images=False)
    service = ready(FakeBackend())
    with _stored(args, service) as first, _stored(args, service) as second:
        assert first is not None and second is None
        assert "another server keeps its files there; name another folder with --data" in capsys.readouterr().err
        args.data = tmp_path / "jaxphoton" / "serve-2020"
        with pytest.raises(CommandError, match="another server"):
            _stored(args, service).__enter__()
    (tmp_path / "file").touch()
    args.data = tmp_path / "file" / "data"
    with pytest.raises(CommandError, match="Not a directory"):
        _stored(args, service).__enter__()
