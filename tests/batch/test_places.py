"""Where the files of a run go, and what is found out before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.places import Places, failures_of, journal_of
from tests.batch.helpers import make_folder, make_journal, picture

JPEG = picture(1, "JPEG")


def test_the_journal_is_beside_the_output_however_it_is_spelled(tmp_path, monkeypatch):
    photos = make_folder(tmp_path / "photos.v2", ["a.png", "sub/b.png"])
    monkeypatch.chdir(photos / "sub")
    (tmp_path / "link").symlink_to(photos)
    beside = tmp_path / "photos.v2.journal"
    for out in ("..", "../", "../.", "../../photos.v2", "../../photos.v2/", str(photos), "../../link/sub/.."):
        assert journal_of(out, "sidecar") == beside, out
    for out in (".", "./", "../sub", f"{photos}/sub/"):
        assert journal_of(out, "sidecar") == photos / "sub.journal"
    assert journal_of(str(tmp_path / "link"), "sidecar") == tmp_path / "link.journal"
    assert journal_of("/", "sidecar") == Path("/jaxphoton.journal")
    assert journal_of("x.jsonl", "jsonl").name == "x.jsonl.journal"
    for out in ("", "a\0b"):
        with pytest.raises(ExportError, match="names no file"):
            journal_of(out, "sidecar")


def test_names_that_are_as_long_as_names_may_be():
    names = [f"{'n' * 249}.{end}" for end in ("jsonl", "jsonm")]
    journals = {journal_of(name, "jsonl").name for name in names}
    lists = {failures_of(Path(journal)).name for journal in journals}
    assert len(journals | lists) == 4 and max(map(len, journals | lists)) <= 255


def test_shards_that_may_share_an_output_have_journals_of_their_own():
    shared = [("texts", "sidecar"), ("out/", "webdataset"), ("c-%05d.tar", "webdataset"), ("boxes/", "yolo")]
    for out, form in shared:
        journals = {journal_of(out, form, (index, 3)) for index in range(3)} | {journal_of(out, form)}
        assert len(journals) == 4 and all(path.name.endswith(".journal") for path in journals)
    assert journal_of("part-0.jsonl", "jsonl", (0, 3)).name == "part-0.jsonl.journal"


def test_every_journal_has_a_list_of_failures_of_its_own():
    names = ["a.journal", "b.journal", "a.jsonl.journal", "a.parquet.journal", "a.1", "a.2", "part-0.log"]
    lists = [failures_of(Path("/x") / name) for name in names]
    assert len(set(lists)) == len(names) and lists[0] == Path("/x/a.failures.jsonl")


@pytest.mark.parametrize("option", ["journal", "report", "trace", "out"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("photos", "is a folder"),
        ("photos/a.png", "is an image"),
        ("photos/none.JPG", "named like one"),
        ("hidden", "is an image"),
        ("link", "is an image"),
        ("hard", "is an image"),
        ("list.txt", "the input"),
        ("soft.list", "the input"),
        ("hard.list", "the input"),
        ("other.journal", "journal of a run"),
        ("pipe", "no regular file"),
        ("none/x", "no folder"),
        ("list.txt/x", "no folder"),
        ("n" * 256, "name too long"),
        ("-", "standard output"),
        ("circle", "symbolic links"),
        ("/proc/x", "cannot be written"),
    ],
)
def test_places_that_no_file_of_a_run_may_take(tmp_path, monkeypatch, option, place, message):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "photos", ["a.png"])
    Path("list.txt").write_text("photos/a.png\n")
    Path("hidden").write_bytes(JPEG)
    Path("link").symlink_to("hidden")
    os.link("hidden", "hard")
    Path("soft.list").symlink_to("list.txt")
    os.link("list.txt", "hard.list")
    Path("circle").symlink_to("circle")
    os.mkfifo("pipe")
    make_journal(Path("other.journal"), [])
    if (option, place) == ("journal", "other.journal"):
        Places(Path(place)).check(["list.txt"])  # a journal goes on
        return
    if option == "report" and place in ("soft.list", "hard.list", "list.txt", "other.journal"):
        message = "no page"
    arguments: dict = {"journal": Path("x.journal"), option: place if option == "out" else Path(place)}
    with pytest.raises(ExportError, match=message):
        Places(form="jsonl" if option == "out" else None, **arguments).check(["list.txt"])


def test_two_files_of_a_run_are_not_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there.html").touch()
    Path("soft.html").symlink_to("there.html")
    os.link("there.html", "hard.html")
    for places in (
        Places(Path("x"), "x", "jsonl"),
        Places(Path("x.journal"), "x.jsonl", "jsonl", Path("x.jsonl")),
        Places(Path("x.journal"), "x.jsonl", "jsonl", Path("x.failures.jsonl")),
        Places(Path("x.journal"), "x.jsonl", "jsonl", Path("./sub/../x.journal")),
        Places(Path("x.journal"), "there.html", "jsonl", Path("soft.html")),
        Places(Path("x.journal"), "there.html", "jsonl", Path("hard.html")),
        Places(Path("x.journal"), None, None, Path("there.html"), Path("hard.html")),
    ):
        (tmp_path / "sub").mkdir(exist_ok=True)
        with pytest.raises(ExportError, match="two things at once"):
            places.check([])
    Places(Path("x.journal"), "x.jsonl", "jsonl", Path("x.html"), Path("x.json")).check([])
    assert sorted(os.listdir()) == ["hard.html", "soft.html", "sub", "there.html"]  # and nothing is left behind


def test_a_report_replaces_pages_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("old.html", "<!DOCTYPE html>\n<p>"), ("empty.html", ""), ("notes.html", "dear diary")):
        Path(name).write_text(text)
    for name in ("old.html", "empty.html", "new.html"):
        Places(Path("j"), report=Path(name)).check([])
    with pytest.raises(ExportError, match="no page"):
        Places(Path("j"), report=Path("notes.html")).check([])


def test_outputs_by_their_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file.jsonl").touch()
    Path("folder.jsonl").mkdir()
    for out, form, message in (
        ("file.jsonl", "sidecar", "no folder"),
        ("file.jsonl/", "sidecar", "no folder"),
        ("n" * 256, "sidecar", "name too long"),
        ("folder.jsonl", "jsonl", "is a folder"),
        ("a.jsonl/", "jsonl", "is a folder"),
        ("c-%05d.jsonl", "jsonl", "only tars"),
        ("c-{000..009}.parquet", "parquet", "only tars"),
        ("s3://bucket/x.jsonl", "jsonl", "no folder|not addresses"),
        ("s3://bucket/x", "sidecar", "not addresses"),
        ("none/texts", "sidecar", "no folder"),
        ("/proc/texts", "sidecar", "cannot be written"),
        ("/proc", "sidecar", "cannot be written"),
    ):
        with pytest.raises(ExportError, match=message):
            Places(Path("j"), out, form).check([])
    Places(Path("j"), "texts.v2/", "sidecar").check([])


def test_a_shard_does_not_replace_the_file_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.jsonl").write_text("{}\n")
    places = Places(Path("1.journal"), "c.jsonl", "jsonl", shard=(1, 2))
    with pytest.raises(ExportError, match="not from this shard"):
        places.check([])
    make_journal(Path("1.journal"), [])
    places.check([])
