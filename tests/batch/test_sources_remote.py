"""Every form behind fsspec: in memory, as a dataset on a hub, on a web server."""

from __future__ import annotations

import functools
import json
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources import SourceOptions, open_source
from tests.batch.helpers import fault, keys, make_folder, make_table, make_tar, picture

pytest.importorskip("pyarrow")


@pytest.fixture
def memory():
    """fsspec's filesystem in memory, empty again afterwards."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def upload(system, folder, root="/bucket"):
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{root}/{path.relative_to(folder)}", path.read_bytes())


def test_every_form_can_lie_behind_fsspec(tmp_path, memory):
    make_folder(tmp_path, ["images/a.png", "images/b/c.png"])
    make_tar(tmp_path / "s-00.tar", {"x.png": picture(5), "x.txt": b"old", "y.png": picture(6)})
    make_table(tmp_path / "t.parquet", {"image": [picture(7)]})
    (tmp_path / "l.txt").write_text("images/a.png\n")
    (tmp_path / "l.jsonl").write_text(json.dumps({"path": "images/gone.png"}) + "\n")
    upload(memory, tmp_path)
    read = {item.key: item.read() for item in open_source("memory://bucket/images").items()}
    assert read == {"a.png": picture(0), "b/c.png": picture(1)}
    assert keys(open_source("memory://bucket/images/**/c.*")) == ["b/c.png"]
    items = list(open_source("memory://bucket/s-*.tar", SourceOptions(columns=("txt",))).items())
    assert [(item.key, item.read()) for item in items] == [("s-00/x", picture(5)), ("s-00/y", picture(6))]
    assert items[0].columns == {"txt": "old"}
    assert [item.read() for item in open_source("memory://bucket/t.parquet").items()] == [picture(7)]
    assert [item.read() for item in open_source("memory://bucket/l.txt").items()] == [picture(0)]
    (missing,) = open_source("memory://bucket/l.jsonl").items()
    assert fault(missing).reason == "not-found"
    assert [item.read() for item in open_source("memory://bucket/images/a.png").items()] == [picture(0)]
    for spec in ("memory://bucket/none", "memory://bucket/none.tar"):
        with pytest.raises(SourceError, match="does not exist"):
            open_source(spec)


@pytest.mark.parametrize("first", ["data/t-0.parquet", "s-0.tar", "images/0.png"])
def test_a_hub_dataset_is_its_tables_else_its_tars_else_its_images(tmp_path, memory, monkeypatch, first):
    def to_memory(url, **_):
        return memory, "/hub/" + url.removeprefix("hf://datasets/")

    monkeypatch.setattr(fsspec.core, "url_to_fs", to_memory)
    make_folder(tmp_path, ["images/0.png"])
    if first != "images/0.png":
        make_tar(tmp_path / "s-0.tar", {"x.png": picture(0)})
    if first.startswith("data"):
        (tmp_path / "data").mkdir()
        make_table(tmp_path / "data" / "t-0.parquet", {"image": [picture(0)]})
    (tmp_path / "README.md").write_text("a dataset")
    upload(memory, tmp_path, "/hub/user/name")
    expected = {"data/t-0.parquet": "t-0/0", "s-0.tar": "s-0/x", "images/0.png": "images/0.png"}
    (item,) = open_source("hf://datasets/user/name").items()
    assert (item.key, item.read()) == (expected[first], picture(0))


@pytest.fixture
def server(tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_a_web_server_without_ranges(tmp_path, server):
    pytest.importorskip("aiohttp")
    make_folder(tmp_path, ["a.png"])
    make_tar(tmp_path / "s.tar", {"x.png": picture(5), "y.png": picture(6)})
    (tmp_path / "l.txt").write_text("a.png\ngone.png\n")
    make_table(tmp_path / "t.parquet", {"image": [picture(7)]})
    assert [item.read() for item in open_source(f"{server}/s.tar").items()] == [picture(5), picture(6)]
    assert [item.read() for item in open_source(f"{server}/t.parquet").items()] == [picture(7)]
    (item,) = open_source(f"{server}/a.png?size=1").items()
    assert item.read() == picture(0)
    found, missing = open_source(f"{server}/l.txt").items()
    assert found.read() == picture(0) and fault(missing).reason == "not-found"
    with pytest.raises(SourceError, match="does not exist"):
        open_source(f"{server}/none.tar")


@pytest.mark.parametrize("name", ["a.png", "folder/", "list.txt", "x.tar", "*.png"])
@pytest.mark.parametrize(
    "scheme, package", [("https", "aiohttp"), ("s3", "s3fs"), ("gs", "gcsfs")], ids=["https", "s3", "gs"]
)
def test_a_package_that_an_address_needs_is_named_at_once(monkeypatch, scheme, package, name):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SourceError, match=r"pip install 'jaxphoton\[remote\]'"):
        open_source(f"{scheme}://nowhere.invalid/{name}")


def test_an_unknown_scheme_is_named_at_once():
    with pytest.raises(SourceError, match="nothing://x/a.png: .*nothing"):
        open_source("nothing://x/a.png")
