"""Names of outputs fit, are always the same, and none is another's."""

from __future__ import annotations

import os
import string
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.exports import ExportOptions, export
from jaxphoton.batch.exports.atomic import keeping, replacing, write_text
from jaxphoton.batch.exports.names import relative_path
from jaxphoton.batch.journal.record import Record
from tests.batch.helpers import caption, make_folder, make_journal, picture

QUERY = "https://host/photos/a.jpg?token=" + "A1b2/%2F" * 60


def text_of(key: str) -> Record:
    return Record(key, "ok", results=({"task": "caption", "caption": f"of {key}", "tokens": 1},))


@given(st.text(st.characters(codec=None) | st.sampled_from("/.\0a"), min_size=1, max_size=600))
def test_every_key_has_a_name_that_can_be_a_file_below_the_folder(key):
    path = relative_path(key, ".txt")
    parts = path.split("/")
    assert path == relative_path(key, ".txt") and not path.startswith("/") and "\0" not in path
    assert all(part not in ("", ".", "..") and len(os.fsencode(part)) <= 255 for part in parts)


@given(
    st.lists(st.text(string.ascii_letters + "ä漢%?&=", min_size=240, max_size=600), min_size=2, max_size=8, unique=True)
)
def test_long_keys_keep_names_of_their_own(keys):
    assert len({relative_path(key, ".txt") for key in keys}) == len(keys)


@pytest.mark.parametrize("length", range(240, 252))
def test_a_text_for_an_image_whose_name_is_as_long_as_names_may_be(tmp_path, length):
    name = "p" * length
    root = make_folder(tmp_path / "in", [f"{name}.png"])
    journal = make_journal(tmp_path / "j", [text_of(f"{name}.png")])
    assert export(journal, root).lost == 0
    assert sorted(os.listdir(root)) == [f"{name}.png", f"{name}.txt"]


def test_texts_for_addresses_with_long_queries_and_for_odd_names(tmp_path):
    keys = [QUERY + "1", QUERY + "2", "漢" * 200 + ".png", "漢" * 200 + "字.png", "a\0b.png", "a_b.png", "c\ud800.png"]
    keys += ["A.png", "a.png", "x" * 300 + "/y.png", "https://host/a.jpg?x=1", "https://host/a.jpg?x=2"]
    journal = make_journal(tmp_path / "j", [text_of(key) for key in keys])
    report = export(journal, tmp_path / "out")
    assert (report.written, report.lost) == (len(keys), 0)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == len(keys)
    again = export(journal, tmp_path / "out")
    assert (again.written, again.unchanged, again.kept) == (0, len(keys), 0)


def test_names_that_cannot_both_be_are_lost_and_told(tmp_path):
    lost = {}
    keys = [
        "a.png",
        "a.jpg",
        "b.png",
        "b.txt/c.png",
        "d.txt/e.png",
        "d.png",
        "f.png",
        "/".join("g" * 200 for _ in range(30)),
    ]
    journal = make_journal(tmp_path / "j", [text_of(key) for key in keys])
    (tmp_path / "out" / "f.txt").mkdir(parents=True)
    report = export(journal, tmp_path / "out", each_lost=lambda key, path, fault: lost.update({key: fault}))
    assert report.lost == report.problem_count == len(lost) == 5 and report.written == 3
    assert lost.keys() == {"a.jpg", "b.txt/c.png", "d.png", "f.png", keys[-1]}
    assert "that of another image" in lost["a.jpg"] and "too long" in lost[keys[-1]]
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]


def test_kept_files_are_not_replaced_by_any_form(tmp_path):
    root = make_folder(tmp_path / "in", ["list.png", "soft.png", "hard.png", "later.png", "ok.png"])
    kept = tmp_path / "in" / "list.txt"
    kept.write_text("list.png\n")
    (root / "soft.txt").symlink_to("list.txt")
    os.link(kept, root / "hard.txt")
    journal = make_journal(tmp_path / "j", [text_of(path.name) for path in sorted(root.glob("*.png"))])
    for existing in ("overwrite", "append"):
        with keeping([kept, root / "later.txt"]):
            report = export(journal, root, options=ExportOptions(existing=existing))
        assert report.lost == 4 and kept.read_text() == "list.png\n" and not (root / "later.txt").exists()
    assert (root / "ok.txt").exists() and (root / "soft.txt").is_symlink()
    boxes = Record("a.png", "ok", results=({"task": "detect", "object": "cat", "objects": []},))
    with keeping([root / "classes.txt"]), pytest.raises(ValueError, match="classes.txt|yolo|in"):
        export(make_journal(tmp_path / "k", [boxes]), root, form="yolo")
    with keeping([tmp_path / "x.jsonl"]), pytest.raises(ValueError, match="x.jsonl"):
        export(journal, tmp_path / "x.jsonl")


def test_two_that_write_one_file_at_a_time_leave_one_of_them_whole(tmp_path):
    path, inside = tmp_path / "x", threading.Event()

    def second():
        inside.wait()
        write_text(path, "second")

    other = threading.Thread(target=second)
    other.start()
    with replacing(path) as file:
        file.write(b"first, ")
        inside.set()
        file.write(b"and whole\n")
    first = path.read_text()
    other.join()
    assert first in ("first, and whole\n", "second\n") and path.read_text() == "second\n"
    assert os.listdir(tmp_path) == ["x"]


def test_a_text_that_is_kept_need_not_be_utf8(tmp_path):
    root = make_folder(tmp_path / "in", ["a.png"])
    (root / "a.txt").write_bytes("é".encode("latin-1"))
    report = export(make_journal(tmp_path / "j", [text_of("a.png")]), root)
    assert (report.lost, report.kept) == (0, 1) and (root / "a.txt").read_bytes() == b"\xe9"


def test_pictures_are_not_texts(tmp_path):
    (tmp_path / "a.txt").write_bytes(picture(1, "JPEG"))
    from jaxphoton.batch.sources import Item

    item = Item("a", "/x/a", lambda: b"")
    report = export(
        make_journal(tmp_path / "j", [caption(item)]), tmp_path, options=ExportOptions(existing="overwrite")
    )
    assert report.lost == 1 and (tmp_path / "a.txt").read_bytes() == picture(1, "JPEG")
