"""Tars with captions: copies of the source's, and packed ones."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from jaxphoton.batch.exports import ExportOptions, export
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.options import Existing
from jaxphoton.batch.sources import Selection, SourceOptions, open_source
from tests.batch.helpers import caption, keys, make_folder, make_journal, make_table, make_tar, picture, read_tar

MEMBERS = {
    "./d/1.jpg": picture(1),
    "./d/1.cls": b"7",
    "2.txt": b"old",
    "2.png": picture(2),
    "2.json": b'{"url": "u", "caption": "alt", "width": 8}',
    "lone.json": b"{}",
    "3.png": picture(3),
}


def journal_of(path, source, but=()):
    """Captions of all but some keys, which have failed."""
    items = source.items()
    return make_journal(
        path,
        [
            Record(item.key, "failed", item.path, reason="corrupt", fault="x") if item.key in but else caption(item)
            for item in items
        ],
    )


def test_other_members_come_back(tmp_path):
    source = open_source(str(make_tar(tmp_path / "s.tar", MEMBERS)))
    journal = journal_of(tmp_path / "j", source, but=["s/3"])
    options = ExportOptions(existing="overwrite")
    report = export(journal, tmp_path / "out", form="webdataset", source=source, options=options)
    assert (report.written, report.failed, report.problem_count) == (2, 1, 0)
    texts = {"./d/1.txt": b"a picture: s/d/1", "2.txt": b"a picture: s/2"}
    assert read_tar(tmp_path / "out" / "s.tar") == MEMBERS | texts
    with tarfile.open(tmp_path / "out" / "s.tar") as tar:
        assert {member.mtime for member in tar} == {1234567}
    again = open_source(str(tmp_path / "out" / "s.tar"), SourceOptions(columns=("txt",)))
    assert [item.columns for item in again.items()] == [{"txt": "a picture: s/d/1"}, {"txt": "a picture: s/2"}, {}]
    assert keys(again) == keys(source)


@pytest.mark.parametrize(
    ("existing", "text"),
    [("skip", b"old"), ("overwrite", b"a picture: s/2"), ("append", b"old\na picture: s/2")],
)
def test_existing_members(tmp_path, existing, text):
    source = open_source(str(make_tar(tmp_path / "s.tar", MEMBERS)))
    journal, options = journal_of(tmp_path / "j", source), ExportOptions(existing=existing)
    export(journal, tmp_path / "x.tar", source=source, options=options)
    assert read_tar(tmp_path / "x.tar")["2.txt"] == text


def test_json_members_are_completed(tmp_path):
    members = MEMBERS | {"4.json": b'{"re_caption": "theirs"}', "4.png": picture(4)}
    source = open_source(str(make_tar(tmp_path / "s.tar", members)))
    journal = journal_of(tmp_path / "j", source)
    outcomes: list[tuple[Existing, str]] = [("skip", "theirs"), ("overwrite", "a picture: s/4")]
    for existing, theirs in outcomes:
        options = ExportOptions(extension=".json", existing=existing)
        export(journal, tmp_path / "x.tar", source=source, options=options)
        made = read_tar(tmp_path / "x.tar")
        old = json.loads(made["2.json"])
        assert (old["url"], old["caption"], old["re_caption"]) == ("u", "alt", "a picture: s/2")
        assert json.loads(made["4.json"])["re_caption"] == theirs
        assert json.loads(made["3.json"])["key"] == "s/3" and made["2.txt"] == b"old" and made["lone.json"] == b"{}"


def test_hidden_members_and_folders_do_not_split_a_sample(tmp_path):
    hidden = {"._1.png": b"mac", "1.png": picture(), "._1.txt": b"mac", "1.txt": b"old", "1.json": b"[1]"}
    path = make_tar(tmp_path / "s.tar", hidden)
    with tarfile.open(path, "a") as tar:
        folder = tarfile.TarInfo("later")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    source = open_source(str(path))
    journal = journal_of(tmp_path / "j", source)
    export(journal, tmp_path / "x.tar", source=source, options=ExportOptions(existing="overwrite"))
    assert read_tar(tmp_path / "x.tar") == hidden | {"1.txt": b"a picture: s/1", "later": b""}
    # A JSON member that is no object has no room for fields.
    export(journal, tmp_path / "y.tar", source=source, options=ExportOptions(extension=".json"))
    assert read_tar(tmp_path / "y.tar") == hidden | {"later": b""}


def test_shards_keep_their_names_and_may_be_exported_apart(tmp_path):
    for number in range(4):
        make_tar(tmp_path / f"s-{number}.tar", {"x.png": picture(number)})
    source = open_source(f"{tmp_path}/s-{{0..3}}.tar")
    journal = journal_of(tmp_path / "j", source)
    part, _ = Selection((1, 2)).part(source)
    export(journal, tmp_path / "out", form="webdataset", source=part)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s-1.tar", "s-3.tar"]
    assert read_tar(tmp_path / "out" / "s-3.tar") == {"x.png": picture(3), "x.txt": b"a picture: s-3/x"}


def test_a_damaged_tar_is_copied_up_to_there(tmp_path):
    whole = make_tar(tmp_path / "s.tar", {f"{n}.png": picture(n) for n in range(3)}).read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[: 2 * 1024 + 520])
    source = open_source(str(tmp_path / "s.tar"))
    made = [caption(item) for item in source.items() if item.key in ("s/0", "s/1")]
    journal = make_journal(tmp_path / "j", made)
    report = export(journal, tmp_path / "x.tar", source=source)
    assert report.problem_count == 1 and "copied up to there" in report.problems[0]
    assert set(read_tar(tmp_path / "x.tar")) == {"0.png", "0.txt", "1.png", "1.txt"}


def test_a_folder_is_packed(tmp_path):
    root = make_folder(tmp_path / "images", ["a.png", "b/c.d.png", "b/c_d.png", "e.png"])
    source = open_source(str(root))
    journal = journal_of(tmp_path / "j", source, but=["a.png"])
    report = export(journal, tmp_path / "x.tar", source=source)
    assert (report.written, report.failed) == (3, 1)
    made = read_tar(tmp_path / "x.tar")
    assert made["b/c_d.png"] == picture(1) and made["b/c_d.txt"] == b"a picture: b/c.d.png"
    assert made["e.png"] == picture(3) and len(made) == 6
    # And is a source again, with a sample for each image.
    assert [item.read() for item in open_source(str(tmp_path / "x.tar")).items()] == [picture(n) for n in (1, 2, 3)]


def test_a_table_is_packed_into_several_tars(tmp_path):
    pytest.importorskip("pyarrow")
    images = [picture(n, "JPEG" if n % 2 else "PNG") for n in range(5)]
    make_table(tmp_path / "t.parquet", {"image": images})
    source = open_source(str(tmp_path / "t.parquet"))
    journal = journal_of(tmp_path / "j", source)
    export(journal, tmp_path / "x-%02d.tar", source=source, options=ExportOptions(shard_size=2))
    made = [read_tar(tmp_path / f"x-{number:02}.tar") for number in range(3)]
    assert [len(each) for each in made] == [4, 4, 2]
    assert list(made[0]) == ["t/0.png", "t/0.txt", "t/1.jpg", "t/1.txt"]
    packed = open_source(f"{tmp_path}/x-{{00..02}}.tar", SourceOptions(columns=("txt",)))
    assert [item.read() for item in packed.items()] == images
    assert [item.columns["txt"] for item in packed.items()] == [f"a picture: t/{n}" for n in range(5)]


def test_answers_without_text_need_json(tmp_path):
    source = open_source(str(make_tar(tmp_path / "s.tar", {"1.png": picture()})))
    detected = Record("s/1", "ok", results=({"task": "detect", "object": "cat", "objects": []},))
    journal = make_journal(tmp_path / "j", [detected])
    report = export(journal, tmp_path / "x.tar", source=source)
    assert "no text" in report.problems[0] and list(read_tar(tmp_path / "x.tar")) == ["1.png"]


@pytest.mark.parametrize(("existing", "text"), [("overwrite", b"a picture: s/a"), ("skip", b"newer")])
def test_no_older_text_comes_behind_the_new_one(tmp_path, existing, text):
    """Unpacked, it would take its place."""
    path = make_tar(tmp_path / "s.tar", {"a.png": picture(0), "a.txt": b"old", "b.png": picture(1)})
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("a.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"newer"))
    source = open_source(str(path))
    journal = journal_of(tmp_path / "j", source)
    export(journal, tmp_path / "out.tar", source=source, options=ExportOptions(existing=existing))
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.getnames().count("a.txt") == 1
        assert tar.extractfile("a.txt").read() == text
