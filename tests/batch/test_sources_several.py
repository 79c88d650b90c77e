"""Several inputs side by side: keys that tell them apart, and what a shell's glob brings along."""

from __future__ import annotations

import json
import shutil

import pytest

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources import Selection, SourceOptions, open_source
from tests.batch.helpers import fault, keys, make_folder, make_table, make_tar, picture


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_clashes_the_keys_are_as_ever(here):
    make_folder(here, ["train/a.png", "val/b.png", "c.png"])
    assert keys(open_source(["train", "val", "c.png"])) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    ("names", "specs", "expected"),
    [
        (["train/1.png", "val/1.png"], ["train", "val"], ["train/1.png", "val/1.png"]),
        (["train/1.png", "val/1.png", "val/2.png"], ["val/", "./train"], ["val/1.png", "val/2.png", "train/1.png"]),
        (["x/a/i/1.png", "x/b/i/1.png"], ["x/a/i", "x/b/i"], ["a/i/1.png", "b/i/1.png"]),
        (["train/1.png", "val/1.png"], ["train/*.png", "val/*.png"], ["train/1.png", "val/1.png"]),
        (["train/1.png", "val/1.png"], ["train/1.png", "val"], ["train/1.png", "1.png"]),
        (["1.png", "val/1.png"], ["1.png", "val"], ["1.png", "val/1.png"]),
        (["p/1.png", "p/s/1.png"], ["p", "p/s"], ["1.png", "s/1.png"]),
        (["p/1.png", "p/s/1.png", "q/1.png"], ["p/s", "p", "q"], ["p/s/1.png", "p/1.png", "q/1.png"]),
        (["p/1.png", "p/2.png", "q/1.png"], ["p/1*", "p/*", "q"], ["p/1.png", "p/2.png", "q/1.png"]),
    ],
)
def test_folders_are_put_before_names_that_clash(here, names, specs, expected):
    make_folder(here, names)
    source = open_source(specs)
    items = list(source.items())
    assert [item.key for item in items] == expected
    assert sorted(item.read() for item in items) == sorted(picture(n) for n in range(len(names)))
    assert source.count() == len(expected) and keys(open_source(specs)) == expected


def test_keys_of_shards_are_those_of_the_whole(here):
    make_folder(here, [f"{folder}/{n}.png" for folder in ("a", "b") for n in range(9)])
    source = open_source(["a", "b"])
    shards = [[item.key for item in Selection((n, 3)).items(open_source(["a", "b"]))] for n in range(3)]
    assert sorted(sum(shards, [])) == sorted(keys(source)) and len(sum(shards, [])) == 18
    assert [item.key for item in Selection(limit=3).items(source)] == ["a/0.png", "a/1.png", "a/2.png"]


def test_containers_of_one_name(here):
    pytest.importorskip("pyarrow")
    for number, folder in enumerate("ab"):
        (here / folder).mkdir()
        make_tar(here / folder / "s.tar", {"x.png": picture(number)})
        make_table(here / folder / "s.parquet", {"image": [picture(number)], "id": [7]})
        make_folder(here / folder, [f"{folder}.png"])
        for kind in ("txt", "jsonl"):
            line = "../a/a.png" if kind == "txt" and folder == "b" else f"{folder}.png"
            text = line if kind == "txt" else json.dumps({"id": 7, "image": f"{folder}.png"})
            (here / folder / f"l.{kind}").write_text(text + "\n")
    assert keys(open_source(["a/s.tar", "b/s.tar"])) == ["a/s/x", "b/s/x"]
    assert keys(open_source(["a/s.parquet", "b/s.parquet"])) == ["a/s/0", "b/s/0"]
    assert keys(open_source(["a/l.jsonl", "b/l.jsonl"])) == ["a/l/7", "b/l/7"]
    mixed = ["a/s.tar", "a/a.png", "b/s.tar", "b/s.parquet"]
    items = list(open_source(mixed).items())
    assert [item.key for item in items] == ["a/s/x", "a/a.png", "b/s/x", "b/s/0"]
    assert [item.read() for item in items] == [picture(0), picture(0), picture(1), picture(1)]
    # One folder, one name, two kinds.
    make_table(here / "b" / "s.parquet", {"image": [picture(5)], "k": ["s/x"]})
    found = list(open_source(["b/s.tar", "b/s.parquet"], SourceOptions(key_column="k")).items())
    assert len({item.key for item in found}) == 2
    assert [item.read() for item in found] == [picture(1), picture(5)]


def test_folders_that_do_not_tell_names_apart_get_numbers(here):
    make_folder(here, ["x/a/1.png", "a/1.png", "x/b/1.png"])
    # The second is named by its path, which is what the first would be called.
    items = list(open_source(["x/a", "a/1.png", "x/b"]).items())
    assert [item.key for item in items] == ["a/1/1.png", "a/1.png", "b/3/1.png"]
    assert [item.read() for item in items] == [picture(n) for n in range(3)]


def test_different_questions_about_one_image_are_not_one_image(here):
    make_folder(here, ["a.png"])
    for number in (1, 2):
        (here / f"l{number}.jsonl").write_text(json.dumps({"id": number, "image": "a.png"}) + "\n")
    assert keys(open_source(["l1.jsonl", "l2.jsonl"])) == ["1", "2"]


def test_an_input_that_is_no_name_is_not_repeated_at_length(here):
    with pytest.raises(SourceError, match="does not exist") as caught:
        open_source("data:image/png;base64," + "A" * 50_000)
    assert len(str(caught.value)) < 2000


def test_addresses_and_folders_side_by_side_end(here):
    make_folder(here, ["a/1.png"])
    source = open_source(["a", "https://host/1.png", "https://host/b/1.png"])
    assert keys(source) == ["1.png", "https://host/1.png", "https://host/b/1.png"]


TEXTS = {
    "0001.txt": "a photo of sks dog",
    "0001.json": '{"caption": "old"}',
    "0001.caption": "old",
    "readme.md": "a set",
    "notes.txt": "taken in May",
    "metadata.jsonl": '{"file_name": "0001.png", "text": "old"}',
    "0001.npz": "x",
}


def test_texts_that_a_shell_brings_along_are_no_lists(here):
    make_folder(here, ["train/0001.png", "train/0002.PNG"])
    for name, text in TEXTS.items():
        (here / "train" / name).write_text(text)
    specs = sorted(f"train/{path.name}" for path in (here / "train").iterdir())
    source = open_source(specs)
    assert keys(source) == ["train/0001.png", "train/0002.PNG"] and source.count() == 2
    assert source.skipped.lines() == [
        "7 files passed over: 2 .txt, 1 .caption, 1 .json, 1 .jsonl, 1 .md, 1 .npz",
    ]
    # Without images beside them they are what they say they are.
    with pytest.raises(SourceError, match="cannot tell"):
        open_source("train/0001.json")
    assert fault(next(open_source("train/notes.txt").items())).reason == "not-found"


def test_a_list_beside_an_image_is_a_list_where_it_names_others(here):
    make_folder(here, ["a.png", "b/1.png"])
    (here / "l.txt").write_text("b/1.png\nhttps://host/x.png\n")
    (here / "l.jsonl").write_text(json.dumps({"id": 1, "image": "b/1.png"}) + "\n")
    assert keys(open_source(["a.png", "l.txt"])) == ["a.png", "b/1.png", "https://host/x.png"]
    for first in ("gone.png", "", "# mine", "a.png", "https://host/0"):
        (here / "m.txt").write_text(f"{first}\nb/1.png\n")
        assert "b/1.png" in keys(open_source(["a.png", "m.txt"])), first
    (here / "n.txt").write_text("gone.png\n")
    assert keys(open_source(["a.png", "n.txt"])) == ["a.png", "gone.png"]
    assert keys(open_source(["a.png", "l.jsonl"])) == ["a.png", "1"]


def test_a_file_of_any_suffix_is_an_image_if_it_begins_like_one(here):
    names = ["a.bin", "b", "c.txt", "d.json", "e.jsonl", "f.tar", "g.parquet", "h.photo.orig"]
    for number, name in enumerate(names):
        form = ("PNG", "JPEG", "GIF", "WEBP")[number % 4]
        (here / name).write_bytes(picture(number, form))
        (item,) = open_source(name).items()
        assert item.key == name and item.read() == picture(number, form) and item.local
    assert keys(open_source(names)) == names
    for name, text in (("x.bin", b"no image"), ("y", b""), ("z.doc", b"BM and more text than that"), ("p5", b"P5 ...")):
        (here / name).write_bytes(text)
        with pytest.raises(SourceError, match="cannot tell what this is"):
            open_source(name)
    (here / "BM.txt").write_bytes(b"BM/a.png\nP1/b.png\n")
    assert keys(open_source("BM.txt")) == ["BM/a.png", "P1/b.png"]


def test_inputs_that_vanish_or_do_not_exist_are_named(here):
    make_folder(here, ["train/1.png"])
    for specs in (["train", "val"], ["train/1.png", "train/2.png"], ["train/1.png", "train/1.txt"]):
        with pytest.raises(SourceError, match=f"{specs[1]}"):
            open_source(specs)
    source = open_source(["train", "train/1.png"])
    shutil.rmtree(here / "train")
    with pytest.raises(SourceError):
        keys(source)


def test_counting_beside_a_run_does_not_count_what_is_passed_over_twice(here):
    make_folder(here, ["a/1.png", "a/2.png", "b/1.png"])
    for name in ("a/x.txt", "b/y.txt"):
        (here / name).write_text("")
    source = open_source(["a", "b"])
    seen = []
    for item in source.items():
        seen.append(item.key)
        assert source.count() == 3
    assert len(seen) == 3 and source.skipped.lines() == ["2 files passed over: 2 .txt"]


@pytest.mark.parametrize("name", ["l.txt", "l.jsonl"])
@pytest.mark.parametrize("code", ["utf-16", "utf-16-be", "utf-32"])
def test_a_list_in_another_encoding_is_refused_as_a_whole(tmp_path, name, code):
    make_folder(tmp_path, ["a.png"])
    (tmp_path / name).write_bytes(("a.png\n" if name == "l.txt" else '{"image": "a.png"}\n').encode(code))
    with pytest.raises(SourceError, match="not a list in UTF-8"):
        open_source(str(tmp_path / name))
