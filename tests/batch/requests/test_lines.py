"""The lines of a file of requests."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("msgspec", reason="needs the extra `serve`")

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.requests.lines import RequestFile
from jaxphoton.batch.requests.pictures import RequestPictures
from jaxphoton.bodies.faults import BodyError
from tests.batch.requests.fake import request, write

pytestmark = pytest.mark.smoke


def faults(path, url=None) -> dict[int, str]:
    return {line.number: str(line.fault) for line in RequestFile(path, url).lines() if line.fault is not None}


def test_a_line_has_its_number_its_id_and_its_body_as_it_was_sent(tmp_path):
    path = write(tmp_path / "in.jsonl", ['{"custom_id": "x", "url": "/v1/query", "body": {"question":  "é"}}'])
    (line,) = RequestFile(path).lines()
    assert (line.number, line.custom_id, line.fault) == (1, "x", None)
    assert line.body == '{"question":  "é"}'.encode() and line.endpoint is not None


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "line 1: the line is not JSON"),
        ("[1]", "line 1: the line is not a JSON object"),
        ('"text"', "line 1: the line is not a JSON object"),
        ("\ufeff\ufeff{}", "line 1: the line is not JSON"),
        ({"url": "/v1/caption", "body": {}}, "line 1: there is no custom_id"),
        (request(7), "line 1: custom_id must be a text"),
        (request(""), "line 1: custom_id is empty"),
        (request("a", method="GET"), "method must be POST, not 'GET'"),
        (request("a", "/v1/embeddings"), "there is no '/v1/embeddings' here, but /v1/caption"),
        ({"custom_id": "a", "body": {}}, "there is no url"),
        ({"custom_id": "a", "url": ["/v1/caption"], "body": {}}, "url must be a text"),
        ({"custom_id": "a", "url": "/v1/caption"}, "there is no body"),
        (r'{"custom_id": "\ud800", "url": "/v1/caption", "body": {}}', "line 1: the line is not JSON"),
        ('{"custom_id": 1e999, "url": "/v1/caption", "body": {}}', "line 1: custom_id must be a text"),
        ('{"custom_id": "a", "url": ' + "[" * 5000 + "]" * 5000 + "}", ("line 1: the line", "url must be a text")),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path, line, fault):
    (told,) = faults(write(tmp_path / "in.jsonl", [line])).values()
    assert told.startswith(fault)


def test_a_text_that_is_no_utf8_is_the_fault_of_its_line(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"custom_id": "\xff"}\n{"custom_id": "a", "url": "\xff", "body": {}}\n')
    told = faults(path)
    assert told[1].startswith("line 1: custom_id is no text of JSON") and told[2].startswith("url is no text of JSON")


def test_an_id_that_comes_again_is_the_fault_of_the_later_line(tmp_path):
    path = write(tmp_path / "in.jsonl", [request("a"), "", request("b"), request("a"), request("a", "/v1/nothing")])
    assert faults(path) == {4: "custom_id 'a' is that of line 1, too", 5: "custom_id 'a' is that of line 1, too"}


def test_a_batch_of_one_url_takes_no_other(tmp_path):
    path = write(tmp_path / "in.jsonl", [request("a"), request("b", "/v1/query", question="?")])
    assert faults(path, "/v1/caption") == {2: "url must be /v1/caption, that of the batch, not '/v1/query'"}


def test_a_byte_order_mark_blank_lines_and_a_last_line_without_an_end_are_no_faults(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(request("a")).encode() + b"\r\n  \n" + json.dumps(request("b")).encode()
    )
    file = RequestFile(path)
    assert [(line.number, line.custom_id, line.fault) for line in file.lines()] == [(1, "a", None), (3, "b", None)]
    assert (file.survey.last, file.survey.lines) == (3, 2)


def test_a_line_that_cannot_be_held_is_a_fault_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxphoton.batch.sources.lists._LINE_BYTES", 200)
    path = write(tmp_path / "in.jsonl", [request("a"), " " * 10 + "x" * 3_000_000, request("b")])
    assert faults(path) == {2: "line 2: the line is too long"}


@pytest.mark.parametrize("content", [None, b"", b"\n \n"])
def test_a_file_without_requests_is_refused(tmp_path, content):
    path = tmp_path / "in.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"no such file|no request in it"):
        RequestFile(path)


def test_another_file_of_requests_is_told_from_this_one(tmp_path):
    one, two = (write(tmp_path / f"{name}.jsonl", [request(name)]) for name in "ab")
    assert RequestFile(one).survey != RequestFile(two).survey


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda part: st.lists(part, max_size=3))
PARTS = st.dictionaries(st.sampled_from(["custom_id", "method", "url", "body", "more"]), JSON | st.just("/v1/caption"))


@given(st.lists(PARTS.map(json.dumps).map(str.encode) | st.binary(), max_size=5), st.data())
def test_damaged_lines_are_requests_or_faults(tmp_path_factory, lines, data):
    path = tmp_path_factory.mktemp("any") / "in.jsonl"
    content = bytearray(b"\n".join([*lines, json.dumps(request("last")).encode()]))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = list(RequestFile(path).lines())
    except SourceError as error:
        assert "no request in it" in str(error)
        return
    for line in found:
        assert (line.fault is None) == (line.endpoint is not None)
        if line.endpoint is not None:
            with suppress(BodyError):
                line.endpoint.parsed(line.body, RequestPictures(str(path.parent)).read)


@given(st.lists(st.text() | st.binary().map(lambda data: data.decode("latin-1")), max_size=8))
def test_any_lines_are_requests_or_faults(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("any") / "in.jsonl"
    path.write_bytes("\n".join([*texts, json.dumps(request("last"))]).encode("utf-8", "replace"))
    lines = list(RequestFile(path).lines())
    assert lines[-1].custom_id == "last" or lines[-1].fault is not None
    assert all((line.fault is None) == (line.endpoint is not None) for line in lines)
