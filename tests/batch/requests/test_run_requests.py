"""Runs over a file of requests, with a stand-in for the model."""

from __future__ import annotations

import json
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("msgspec", reason="needs the extra `serve`")

from jaxphoton.batch import BatchError, RunObserver, run_requests
from jaxphoton.batch.errors import JournalError, OptionError, SettingsDiffer
from jaxphoton.batch.exporting import Exporter
from jaxphoton.batch.requests.lines import RequestFile, RequestLine
from jaxphoton.batch.requests.pictures import RequestPictures
from jaxphoton.batch.requests.runner import RequestRules, RequestRunner
from jaxphoton.batch.requests.web import web_pictures
from jaxphoton.bodies.endpoints import endpoint_of
from jaxphoton.bodies.faults import BodyError
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.errors import EngineError, ModelClosed
from tests.batch.helpers import json_lines, picture
from tests.batch.requests.fake import PICTURE, FakeRunModel, request, write

pytestmark = pytest.mark.smoke


@pytest.fixture
def asks(tmp_path):
    """Nine lines, of which three cannot be asked."""
    lines: list[Any] = [request(str(number)) for number in range(6)]
    lines[2:2] = ["{", request("0"), request("x", "/v1/nothing")]
    return write(tmp_path / "in.jsonl", lines)


def test_every_line_is_answered_in_its_place(asks, tmp_path):
    result = run_requests(asks, tmp_path / "out.jsonl", model=FakeRunModel())
    lines = json_lines(tmp_path / "out.jsonl")
    assert [line["custom_id"] for line in lines] == ["0", "1", None, "0", "x", "2", "3", "4", "5"]
    assert [line["response"]["status_code"] for line in lines] == [200, 200, 400, 400, 400, 200, 200, 200, 200]
    assert (result.images, result.done, result.failed, result.stopped) == (9, 9, 3, False)
    good, bad = lines[1], lines[3]
    assert good["response"]["body"]["caption"] == "1" and good["error"] is None
    assert good["response"]["request_id"] == good["response"]["body"]["request_id"]
    assert bad["error"] == bad["response"]["body"]["error"] and bad["error"]["code"] == "duplicate_custom_id"
    assert len({line["id"] for line in lines}) == 9


def test_failed_lines_have_a_file_of_their_own_where_one_is_named(asks, tmp_path):
    errors = tmp_path / "errors.jsonl"
    result = run_requests(asks, tmp_path / "out.jsonl", errors, model=FakeRunModel())
    assert [line["custom_id"] for line in json_lines(errors)] == [None, "0", "x"] and result.failures == errors
    assert [line["custom_id"] for line in json_lines(tmp_path / "out.jsonl")] == list("012345")


def test_lines_ask_different_things_each_with_its_settings(tmp_path):
    lines = [
        request("a", "/v1/query", question="Is it day?", settings={"max_tokens": 3}, priority=7, timeout=0.001),
        request("b", image_url=PICTURE, length="short", stream=True),
        request("c", "/v1/chat/completions", model="m", messages=[{"role": "user", "content": "Hello"}], seed=3),
    ]
    model = FakeRunModel()
    run_requests(write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl", model=model)
    (first,), (second,), (third,) = (job.asks for job in model.jobs)
    assert (first.skill, first.settings, first.priority, first.deadline) == ("query", {"max_tokens": 3}, 0, None)
    assert (second.skill, second.arguments["length"]) == ("caption", "short") and third.settings == {"seed": 3}
    assert [job.image for job in model.jobs] == [None, b"\0\0\0", None]
    answers = [line["response"]["body"] for line in json_lines(tmp_path / "out.jsonl")]
    assert answers[0]["answer"] == "Is it day?" and answers[1]["caption"] == "b"
    assert answers[2]["choices"][0]["message"]["content"] == "Hello" and answers[2]["object"] == "chat.completion"
    assert answers[2]["model"] == model.name


def test_what_the_model_refuses_fails_one_line(tmp_path, caplog):
    faults = {
        "a": ImageError("a", "corrupt", "broken data"),
        "b": ValueError("the question is too long"),
        "c": NotImplementedError("no segments here"),
        "d": PermissionError(13, "Permission denied"),
        "e": ImportError("a schema needs llguidance"),
        "f": KeyError("of ours"),
    }
    path = write(tmp_path / "in.jsonl", [request(name) for name in "abcdefg"])
    run_requests(path, tmp_path / "out.jsonl", model=FakeRunModel(lambda job: faults.get(job.name)))
    lines = json_lines(tmp_path / "out.jsonl")
    assert [line["response"]["status_code"] for line in lines] == [400, 400, 400, 400, 501, 500, 200]
    assert [line["error"]["message"] for line in lines[:6]] == [
        "the image: broken data",
        "the question is too long",
        "no segments here",
        "the image: Permission denied",
        "a schema needs llguidance",
        "a fault of the server; its log says more",
    ]
    assert "line 6: 'of ours'" in caplog.text


def test_an_engine_that_fails_ends_the_run_which_goes_on_later(tmp_path):
    path = write(tmp_path / "in.jsonl", [request(str(number)) for number in range(9)])
    broken = FakeRunModel(lambda job: EngineError("no memory") if job.name == "6" else None)
    with pytest.raises(EngineError, match="no memory"):
        run_requests(path, tmp_path / "out.jsonl", model=broken)
    assert not (tmp_path / "out.jsonl").exists()
    model = FakeRunModel()
    run_requests(path, tmp_path / "out.jsonl", model=model)
    # Answers come in reverse order within each four: the first four are done, of the next only the last.
    assert [job.name for job in model.jobs] == ["4", "5", "6", "8"]
    assert [line["custom_id"] for line in json_lines(tmp_path / "out.jsonl")] == [str(number) for number in range(9)]


def test_nothing_is_asked_twice_and_failures_only_when_told(asks, tmp_path):
    broken = FakeRunModel(lambda job: ValueError("no") if job.name == "4" else None)
    assert run_requests(asks, tmp_path / "out.jsonl", model=broken).failed == 4
    model = FakeRunModel()
    again = run_requests(asks, tmp_path / "out.jsonl", model=model)
    assert (again.images, again.done, again.failed, model.opened) == (0, 9, 4, 0)
    retried = run_requests(asks, tmp_path / "out.jsonl", model=model, retry_failed=True)
    assert [job.name for job in model.jobs] == ["4"] and (retried.images, retried.failed) == (4, 3)
    assert run_requests(asks, tmp_path / "out.jsonl", model=model, restart=True).images == 9


def test_other_requests_are_no_continuation(asks, tmp_path):
    run_requests(asks, tmp_path / "out.jsonl", model=FakeRunModel())
    with asks.open("a") as file:
        file.write('{"custom_id": "new", "url": "/v1/caption", "body": {"image_url": "' + PICTURE + '"}}\n')
    with pytest.raises(SettingsDiffer, match=r"requests\.lines was 9 and is now 10"):
        run_requests(asks, tmp_path / "out.jsonl", model=FakeRunModel())
    assert run_requests(asks, tmp_path / "out.jsonl", model=FakeRunModel(), allow_changes=True).images == 1


def test_a_stop_keeps_what_is_done_in_order(tmp_path):
    path = write(tmp_path / "in.jsonl", [request(str(number)) for number in range(20)])
    seen = threading.Event()

    class Watching(RunObserver):
        def image(self, number, record):
            if record.key == "1":  # the last to finish of the first four
                seen.set()

    result = run_requests(path, tmp_path / "out.jsonl", model=FakeRunModel(), observer=Watching(), stop=seen.is_set)
    assert result.stopped and [line["custom_id"] for line in json_lines(tmp_path / "out.jsonl")] == list("0123")
    assert run_requests(path, tmp_path / "out.jsonl", model=FakeRunModel()).images == 16


@pytest.mark.parametrize("option", [{"limit": 3}, {"temperature": 1.0}, {"form": "jsonl"}, {"trace": "x"}])
def test_options_for_images_are_refused(asks, tmp_path, option):
    with pytest.raises(OptionError, match="not for requests"):
        run_requests(asks, tmp_path / "out.jsonl", model=FakeRunModel(), **option)


def test_no_output_takes_the_place_of_another_file(asks, tmp_path):
    before = asks.read_bytes()
    for out, errors in ((asks, None), (tmp_path / "out.jsonl", asks), (tmp_path / "out.jsonl", tmp_path / "out.jsonl")):
        with pytest.raises(BatchError):
            run_requests(asks, out, errors, model=FakeRunModel())
    assert asks.read_bytes() == before


def test_a_journal_of_requests_is_not_exported_as_one_of_images(asks, tmp_path):
    run_requests(asks, tmp_path / "out.jsonl", model=FakeRunModel())
    with pytest.raises(JournalError, match="of requests"):
        Exporter(tmp_path / "out.jsonl.journal")


def test_pictures_are_files_beside_the_list_or_what_is_fetched(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b.png").write_bytes(picture())
    pictures = RequestPictures(str(tmp_path), lambda url, param: url.encode())
    path = str(tmp_path / "sub" / "a b.png")
    for text in ("sub/a b.png", path, f"file://{path.replace(' ', '%20')}", f"file://localhost{path}"):
        found = pictures.read(text, "image_url")
        assert not pictures.is_slow(found) and pictures.image(found) == path
    found = pictures.read("https://example.com/a.png", "image_url")
    assert pictures.is_slow(found) and pictures.image(found) == b"https://example.com/a.png"
    with pytest.raises(BodyError, match="no pictures are fetched"):
        RequestPictures(str(tmp_path)).image(found)
    for text in ("s3://bucket/a.png", "file://elsewhere/a.png", "", "a\0b"):
        with pytest.raises(BodyError):
            pictures.read(text, "image_url")


def test_no_file_is_read_where_there_is_no_folder(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    for text in (f"file://{tmp_path}/a.png", f"{tmp_path}/a.png", "../a.png"):
        with pytest.raises(BodyError):
            RequestPictures().read(text, "image_url")


@given(st.integers(1, 5), st.integers(0, 30), st.data())
def test_no_more_are_under_way_than_may_be(most, count, data):
    """However an answerer reads ahead and mixes its answers; and all are answered."""
    under_way, highest, records = 0, 0, []

    class Mixing:
        def answer(self, jobs):
            nonlocal under_way, highest
            waiting, jobs = [], iter(jobs)
            ended = False
            while waiting or not ended:
                while not ended and under_way < most and (not waiting or data.draw(st.booleans())):
                    job = next(jobs, None)
                    ended = job is None
                    if job is not None:
                        under_way += 1
                        highest = max(highest, under_way)
                        waiting.append(job)
                if waiting:
                    job = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
                    under_way -= 1
                    yield FakeRunModel()._one(job)

    body, endpoint = json.dumps({"image_url": PICTURE}).encode(), endpoint_of("/v1/caption")
    lines = [RequestLine(number, str(number), endpoint, body) for number in range(1, count + 1)]
    RequestRunner(Mixing(), RequestPictures(), records.append, RequestRules(most=most)).run(lines)
    assert highest <= most and sorted(int(record.key) for record in records) == list(range(1, count + 1))


def test_leaving_gives_up_what_is_under_way(tmp_path):
    left, closed, records = threading.Event(), threading.Event(), []

    class Endless:
        def answer(self, jobs):
            try:
                for job in jobs:
                    left.set()
                    yield FakeRunModel()._one(job)
                raise AssertionError("it went on")
            finally:
                closed.set()

    path = write(tmp_path / "in.jsonl", [request(str(number)) for number in range(5)])
    RequestRunner(Endless(), RequestPictures(), records.append, left=left.is_set).run(RequestFile(path).lines())
    assert closed.is_set() and len(records) == 1


def test_a_model_that_is_closed_is_no_fault_of_a_line(tmp_path):
    path = write(tmp_path / "in.jsonl", [request("a")])
    with pytest.raises(ModelClosed):
        run_requests(path, tmp_path / "out.jsonl", model=FakeRunModel(lambda job: ModelClosed()))


def test_memory_does_not_grow_with_the_file(tmp_path):
    class Forgetting(FakeRunModel):
        def answer(self, jobs):
            for job in jobs:
                yield self._one(job)

    picture = "data:image/png;base64," + "A" * 40_000
    lines = (json.dumps(request(str(number), image_url=picture)) for number in range(1500))
    with open(tmp_path / "in.jsonl", "w") as file:
        file.writelines(f"{line}\n" for line in lines)
    tracemalloc.start()
    try:
        result = run_requests(tmp_path / "in.jsonl", tmp_path / "out.jsonl", model=Forgetting())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.done == 1500 and (tmp_path / "in.jsonl").stat().st_size > 60_000_000 and peak < 12_000_000


def test_pictures_come_from_the_web_where_that_is_allowed(tmp_path):
    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a" else 404)
            self.end_headers()
            self.wfile.write(b"the picture")

        def log_message(self, *_): ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        lines = [request(name, image_url=f"{address}/{name}") for name in "ab"]
        path = write(tmp_path / "in.jsonl", lines)
        model = FakeRunModel()
        with web_pictures(allowed=lambda address: address.is_loopback, ports={server.server_port}) as fetch:
            run_requests(path, tmp_path / "out.jsonl", model=model, rules=RequestRules(fetch=fetch))
        server.shutdown()
    assert [job.image for job in model.jobs] == [b"the picture"]
    good, bad = json_lines(tmp_path / "out.jsonl")
    assert good["error"] is None and "status 404" in bad["error"]["message"]
