"""Web servers that are slow, overloaded or broken: in bounded time, and what is whole is whole."""

from __future__ import annotations

import gzip
import socket
from contextlib import contextmanager

import pytest

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources import SourceOptions, open_source
from jaxphoton.batch.sources import retry as retrying
from jaxphoton.batch.sources.retry import RetryPolicy
from jaxphoton.batch.sources.selection import read_ahead
from jaxphoton.image.errors import ImageError
from tests.batch.helpers import fault, make_table, make_tar, picture
from tests.batch.site import Site, drop, send

pytest.importorskip("aiohttp")

SHORT = RetryPolicy(timeout_s=0.5, retries=3)
LONG = RetryPolicy(timeout_s=60, retries=3)


@pytest.fixture
def waits(monkeypatch):
    """How long would have been waited between tries, without waiting."""
    waited = []
    monkeypatch.setattr(retrying.time, "sleep", waited.append)
    return waited


def item_at(url, retry):
    (item,) = open_source(url, SourceOptions(retry=retry)).items()
    return item


def hang(site, handler, path, number):
    site.over.wait(60)


def hang_after_headers(site, handler, path, number):
    send(handler, picture()[:10], length=len(picture()))
    site.over.wait(60)


def trickle(site, handler, path, number):
    send(handler, b"", length=len(picture()))
    for byte in picture():
        if site.over.wait(0.1):
            return
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()


def trickle_headers(site, handler, path, number):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not site.over.wait(0.1):
        handler.wfile.write(b"x")
        handler.wfile.flush()


def endless_redirects_that_are_slow(site, handler, path, number):
    if not site.over.wait(0.1):
        send(handler, status=302, Location=path + "x")


@pytest.mark.parametrize("answer", [hang, hang_after_headers, trickle, trickle_headers])
def test_what_does_not_come_in_time_has_timed_out(answer):
    with Site(answer) as site:
        error = fault(item_at(f"{site.url}/a.png", SHORT))
        assert (error.reason, error.fault) == ("timeout", "cannot be read: timed out after 0.5 s")
        assert site.tries == {"/a.png": 1}


def test_a_server_that_accepts_nothing_more_has_timed_out():
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        port = listening.getsockname()[1]
        assert fault(item_at(f"http://127.0.0.1:{port}/a.png", SHORT)).reason == "timeout"


def test_one_that_hangs_holds_up_no_other():
    def answer(site, handler, path, number):
        if "hang" in path:
            site.over.wait(60)
        send(handler, picture())

    with Site(answer) as site:
        names = [f"{site.url}/{'hang' if n in (0, 7) else n}.png?{n}" for n in range(30)]
        items = [item_at(name, LONG) for name in names]
        ahead = read_ahead(items, lambda item: item.read(), lambda item: not item.local, threads=4)
        found = dict(next(ahead) for _ in range(28))
        assert sorted(found) == [n for n in range(30) if n not in (0, 7)]
        assert set(found.values()) == {picture()}
        site.over.set()
        assert sorted(place for place, _ in ahead) == [0, 7]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_an_overloaded_server_is_asked_again(waits, status):
    def answer(site, handler, path, number):
        send(handler, picture(), status=status if number < 4 else 200)

    with Site(answer) as site:
        assert item_at(f"{site.url}/a.png", LONG).read() == picture()
        assert site.tries["/a.png"] == 4 and len(waits) == 3 and waits == sorted(waits)


@pytest.mark.parametrize("status", [429, 503])
def test_one_that_stays_so_is_a_failure_that_names_it(waits, status):
    with Site(lambda site, handler, path, number: send(handler, status=status)) as site:
        error = fault(item_at(f"{site.url}/a.png", RetryPolicy(60, retries=2)))
        assert error.reason == "unreadable" and f"HTTP {status}" in error.fault and "3 times" in error.fault
        assert site.tries["/a.png"] == 3
        fault(item_at(f"{site.url}/b.png", RetryPolicy(60, retries=0)))
        assert site.tries["/b.png"] == 1


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        ("100000", 30, 30),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 30, 30),
        ("Fri, 01 Jan 2021 00:00:00 GMT", 0.1, 2),
        ("soon", 0.1, 2),
        ("-5", 0.1, 2),
        ("1e9", 0.1, 2),
    ],
)
def test_what_the_server_asks_for_is_waited_within_bounds(waits, asked, least, most):
    def answer(site, handler, path, number):
        if number == 1:
            send(handler, status=429, Retry_After=asked)
        else:
            send(handler, picture())

    with Site(answer) as site:
        assert item_at(f"{site.url}/a.png", LONG).read() == picture()
    assert len(waits) == 1 and least <= waits[0] <= most


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "not-found"), (410, "not-found"), (403, "unreadable"), (401, "unreadable")]
)
def test_a_refusal_is_not_tried_again(waits, status, reason):
    with Site(lambda site, handler, path, number: send(handler, b"no", status=status)) as site:
        error = fault(item_at(f"{site.url}/a.png", LONG))
        assert error.reason == reason and site.tries == {"/a.png": 1} and not waits
        assert reason == "not-found" or f"HTTP {status}" in error.fault


def short_body(handler):
    send(handler, picture()[:40], length=len(picture()))
    drop(handler)


def short_chunks(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"28\r\n" + picture()[:40] + b"\r\n")
    handler.wfile.flush()
    drop(handler)


def short_gzip(handler):
    data = gzip.compress(picture())
    send(handler, data[:30], length=len(data), Content_Encoding="gzip")
    drop(handler)


def half_of_the_headers(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    handler.wfile.flush()
    drop(handler)


@pytest.mark.parametrize("broken", [drop, short_body, short_chunks, short_gzip, half_of_the_headers])
def test_a_connection_that_breaks_is_tried_again_and_half_a_picture_is_none(waits, broken):
    def answer(site, handler, path, number):
        if "always" in path or number < 3:
            broken(handler)
        else:
            send(handler, picture())

    with Site(answer) as site:
        assert item_at(f"{site.url}/a.png", LONG).read() == picture()
        assert fault(item_at(f"{site.url}/always.png", LONG)).reason == "unreadable"
        assert len(waits) >= 3


def test_nobody_listens(waits):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        error = fault(item_at(f"http://127.0.0.1:{taken.getsockname()[1]}/a.png", LONG))
    assert error.reason == "unreadable" and "onnect" in error.fault and len(waits) == 3


def test_a_name_that_is_none(waits):
    error = fault(item_at("http://no-such-host.invalid/a.png", LONG))
    assert error.reason == "unreadable" and "no-such-host.invalid" in error.fault


def test_redirects_are_followed_but_not_for_ever(waits):
    def answer(site, handler, path, number):
        if path == "/here.png":
            send(handler, picture())
        elif path == "/moved.png":
            send(handler, status=301, Location="/here.png")
        else:
            send(handler, status=302, Location=path + "x")

    with Site(answer) as site:
        assert item_at(f"{site.url}/moved.png", LONG).read() == picture()
        error = fault(item_at(f"{site.url}/round.png", LONG))
        assert error.reason == "unreadable" and error.fault == "cannot be read: too many redirects"
        assert sum(site.tries.values()) < 50


def test_an_endless_answer_is_bounded(monkeypatch):
    from jaxphoton.batch.sources import remote, storage

    monkeypatch.setattr(remote, "MAX_FILE_BYTES", 1 << 20)
    monkeypatch.setattr(storage, "MAX_FILE_BYTES", 1 << 20)

    def answer(site, handler, path, number):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        while not site.over.is_set():
            handler.wfile.write(bytes(1 << 16))

    with Site(answer) as site:
        error = fault(item_at(f"{site.url}/a.png", LONG))
    assert error.reason == "unreadable" and "1 MiB" in error.fault


@contextmanager
def breaking(files, ranges, faults):
    """Serves files, and breaks so many of the answers to GET after the first bytes."""
    left = [faults]

    def answer(site, handler, path, number):
        data = files[path.strip("/")]
        asked = handler.headers.get("Range")
        head = {"Accept_Ranges": "bytes"} if ranges else {}
        if asked and ranges:
            first, last = asked.removeprefix("bytes=").split("-")
            part = data[int(first) : int(last) + 1]
            head["Content_Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            status = 206
        else:
            part, status = data, 200
        if handler.command == "GET" and left[0]:
            left[0] -= 1
            send(handler, part[: len(part) // 2], status=status, length=len(part), **head)
            drop(handler)
        else:
            send(handler, part, status=status, **head)

    with Site(answer) as site:
        yield site


@pytest.mark.parametrize("ranges", [True, False])
def test_containers_survive_connections_that_break(tmp_path, waits, ranges):
    pytest.importorskip("pyarrow")
    make_tar(tmp_path / "s.tar", {f"{n}.png": picture(n) for n in range(9)})
    make_table(tmp_path / "t.parquet", {"image": [picture(n) for n in range(9)]})
    files = {name: (tmp_path / name).read_bytes() for name in ("s.tar", "t.parquet")}
    files["l.txt"] = b"a.png\nb.png\n"
    for name in files:
        with breaking(files, ranges, 2) as site:
            items = list(open_source(f"{site.url}/{name}", SourceOptions(retry=LONG)).items())
            assert len(items) == (2 if name == "l.txt" else 9)
            if name != "l.txt":
                assert [item.read() for item in items] == [picture(n) for n in range(9)]


def test_a_container_on_a_server_that_hangs_is_one_clear_fault(tmp_path):
    def answer(site, handler, path, number):
        site.over.wait(60)

    with Site(answer) as site:
        for name in ("s.tar", "t.parquet", "l.txt", "l.jsonl"):
            with pytest.raises(SourceError, match="timed out after 0.5 s"):
                open_source(f"{site.url}/{name}", SourceOptions(retry=SHORT))


def test_a_generic_storage_is_waited_for_no_longer(monkeypatch):
    import asyncio

    import fsspec
    from fsspec.asyn import AsyncFileSystem

    class Hanging(AsyncFileSystem):
        async def _cat_file(self, path, **_):
            await asyncio.sleep(3600)

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url, **_: (Hanging(skip_instance_cache=True), url))
    error = fault(item_at("s3://bucket/a.png", SHORT))
    assert (error.reason, error.fault) == ("timeout", "cannot be read: timed out after 0.5 s")


def test_the_faults_are_those_of_images():
    with Site(lambda site, handler, path, number: send(handler)) as site, pytest.raises(ImageError, match="empty"):
        item_at(f"{site.url}/a.png", LONG).read()
