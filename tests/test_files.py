"""Reading of files that may come from anywhere, and names and values in messages."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.files import FileError, first_bytes, open_regular, parse_json, read_bytes, read_json, reason
from jaxphoton.messages import escaped, first_line, listed, quoted, short


@pytest.fixture
def strange(tmp_path, monkeypatch) -> dict[str, Path]:
    """Kind of what is no regular file -> one such."""
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the address of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "broken").symlink_to("nowhere")
    places = {"a named pipe": "pipe", "a socket": "socket", "a folder": "folder", "no such file": "absent"}
    return {kind: tmp_path / name for kind, name in places.items()} | {
        "a device": Path("/dev/zero"),
        "a named pipe, not a regular": tmp_path / "link",
        "no such": tmp_path / "broken",
        "File name too long": tmp_path / ("x" * 300),
        "null": tmp_path / "a\0b",
    }


def test_only_regular_files_are_opened(strange):
    for kind, path in strange.items():
        for read in (read_bytes, read_json):
            with pytest.raises(FileError, match=kind):
                read(path, 10)
        with pytest.raises((OSError, ValueError)) as caught:
            open_regular(path)
        assert kind in reason(caught.value)
        assert first_bytes(path, 10) == b""


def test_links_to_files_are_followed(tmp_path):
    (tmp_path / "blob").write_text('{"a": 1}')
    (tmp_path / "link").symlink_to("blob")
    assert read_json(tmp_path / "link", 100) == {"a": 1}


def test_no_more_is_read_than_the_bound(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_bytes(file, 5) == b"12345"
    with pytest.raises(FileError, match="larger than the 4 bytes"):
        read_bytes(file, 4)
    # Files of the kernel state no size; what they give counts.
    assert os.stat("/proc/self/status").st_size == 0
    with pytest.raises(FileError, match="larger than the 10 bytes"):
        read_bytes("/proc/self/status", 10)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"nope", "not JSON: Expecting value: line 1"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"[" * 10**6, "nested too deeply"),
        (b'{"b": {"a": 1, "c": 2, "a": 3}}', "the name 'a' occurs twice"),
    ],
)
def test_what_is_no_json(data, message):
    with pytest.raises(FileError, match=message):
        parse_json(data)


@given(data=st.binary(max_size=60) | st.text(alphabet='{}[]":,0123456789.eE-+ntf \\u', max_size=60).map(str.encode))
def test_any_bytes_are_json_or_refused(data):
    try:
        parse_json(data)
    except FileError as error:
        assert len(str(error)) < 500


def test_integers_of_any_length(tmp_path):
    assert parse_json(b"[" + b"9" * 400 + b"]") == [10**400 - 1]
    assert parse_json(b"[-" + b"9" * 10**6 + b"]") == [float("-inf")]


NESTED = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(value=NESTED)
def test_values_in_messages_are_short_and_printable(value):
    for text in (quoted(value), quoted([value] * 100), short(value), listed([value] * 50)):
        assert len(text) < 6000 and text.isprintable()


def test_values_are_cut_where_they_are_long():
    assert quoted("ab") == "'ab'" and quoted([1, 2]) == "[1, 2]" and quoted(None) == "None"
    assert quoted("a" * 10**6).count("a") < 100
    assert quoted("\x1b[31m\n\u202e") == r"'\x1b[31m\n\u202e'"
    assert quoted(10**5000) == "an integer of 16610 bits"
    deep: list = []
    for _ in range(10**5):
        deep = [deep]
    assert quoted(deep) == "[[[...]]]"
    while deep:  # one by one: freeing so deep a list takes more stack than some threads have
        deep = deep[0]
    assert short("x" * 81) == "x" * 77 + "..." and short("x" * 80) == "x" * 80
    assert escaped("a b/ü") == "a b/ü" and escaped("a\x1b\n\udc80") == r"a\x1b\n\udc80"
    assert escaped("/" + "a" * 900) == "/" + "a" * 900 and len(escaped("a" * 10**6)) == 1000
    assert listed(["a", "b\n"]) == r"a, b\n"
    assert listed(map(str, range(30))).endswith("19, and 10 more")


def test_what_others_say_is_one_line():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(RuntimeError()) == "RuntimeError"
    assert len(first_line(ValueError("x" * 10**6))) < 600
