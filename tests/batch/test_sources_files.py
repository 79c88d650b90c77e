"""Folders, globs, single files, lists: keys, order, faults."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources import SourceOptions, open_source
from tests.batch.helpers import fault, keys, make_folder, picture

NAMES = ["a.png", "b/c.JPG", "b/d/e.webp", "b-1.png", "z.gif"]


def test_a_folder_is_searched_with_its_subfolders_in_the_order_of_whole_paths(tmp_path):
    make_folder(tmp_path, [*NAMES, ".hidden.png", ".cache/x.png"])
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(str(tmp_path))
    assert keys(source) == sorted(NAMES) and source.count() == len(NAMES)
    item = next(source.items())
    assert (item.path, item.local, item.image()) == (str(tmp_path / "a.png"), True, str(tmp_path / "a.png"))
    assert item.read() == picture(0)


@given(st.sets(st.text("ab-./", min_size=1, max_size=8), min_size=1, max_size=12))
def test_order_is_that_of_sorted_paths(tmp_path_factory, names):
    root, kept = tmp_path_factory.mktemp("tree"), set()
    for name in names:
        parts = [part for part in name.split("/") if part.strip(".") and not part.startswith(".")]
        path = "/".join(parts) + ".png"
        if parts and not (root / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"x")
            kept.add(path)
    if kept:
        assert keys(open_source(str(root))) == sorted(kept)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png", "b-1.png"]),
        ("*", ["a.png", "b-1.png", "z.gif"]),
        ("**/*", sorted(NAMES)),
        ("b/**", ["c.JPG", "d/e.webp"]),
        ("b/*", ["c.JPG"]),
        ("[bz]*", ["b-1.png", "z.gif"]),
        ("*/d/?.webp", ["b/d/e.webp"]),
    ],
)
def test_globs(tmp_path, pattern, expected):
    make_folder(tmp_path, NAMES)
    (tmp_path / "a.txt").write_text("a caption")
    assert keys(open_source(f"{tmp_path}/{pattern}")) == expected


def test_names_with_glob_characters_are_names_first(tmp_path, monkeypatch):
    make_folder(tmp_path / "photos [1]", ["a[0].png", "b*.png"])
    monkeypatch.chdir(tmp_path / "photos [1]")
    assert keys(open_source(str(tmp_path / "photos [1]"))) == ["a[0].png", "b*.png"]
    assert keys(open_source("a[0].png")) == ["a[0].png"]
    (tmp_path / "photos [1]" / "l[0].txt").write_text("a[0].png\n")
    assert keys(open_source("l[0].txt")) == ["a[0].png"]
    assert [item.path for item in open_source(".").items()][0] == str(tmp_path / "photos [1]" / "a[0].png")


def test_a_single_image_has_its_path_as_key(tmp_path, monkeypatch):
    make_folder(tmp_path, ["a.png"])
    monkeypatch.chdir(tmp_path)
    (item,) = open_source("a.png").items()
    assert (item.key, item.path) == ("a.png", str(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "does not exist"),
        ("nowhere.png", "does not exist"),
        ("nowhere.txt", "does not exist"),
        ("nowhere/*.png", "No such file"),
        ("empty", "no image found"),
        ("empty/*.png", "no image matches"),
        ("notes.doc", "cannot tell what this is"),
        ("empty.txt", "the list is empty"),
        ("x-{000..002}.tar", "x-000.tar does not exist .3 of 3"),
        ("x-{2..1}.tar", "empty"),
        ("x-{abc}.tar", "neither a range"),
        ("bad.tar", "cannot be read as tar"),
        ("bad.parquet", "cannot be read as parquet"),
        ("*.parquet5.tar", "nothing matches"),
        ("nosuch://x/y.png?", "nosuch"),
        ([], "no input"),
    ],
)
def test_faults_of_the_whole_source_name_themselves(tmp_path, monkeypatch, spec, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n\n")
    for name in ("notes.doc", "bad.tar", "bad.parquet"):
        (tmp_path / name).write_bytes(b"not what it says" * 100)
    with pytest.raises(SourceError, match=message):
        open_source(spec)


def test_a_broken_link_and_a_vanished_file_are_failing_items(tmp_path):
    make_folder(tmp_path, ["a.png", "c.png"])
    (tmp_path / "b.png").symlink_to(tmp_path / "gone")
    (tmp_path / "d.png").write_bytes(b"")
    items = list(open_source(str(tmp_path)).items())
    (tmp_path / "c.png").unlink()
    assert [item.key for item in items] == ["a.png", "b.png", "c.png", "d.png"]
    assert [fault(item).reason for item in items[1:]] == ["not-found", "not-found", "empty"]


def test_a_folder_that_cannot_be_read_is_one_failing_item(tmp_path, monkeypatch):
    def scandir(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    real = os.scandir
    make_folder(tmp_path, ["a.png", "b/c.png", "d.png"])
    monkeypatch.setattr(os, "scandir", scandir)
    items = list(open_source(str(tmp_path)).items())
    assert [item.key for item in items] == ["a.png", "b/", "d.png"]
    assert fault(items[1]).reason == "unreadable" and "Permission denied" in str(fault(items[1]))


def test_a_list_names_paths_from_its_own_folder_and_addresses(tmp_path):
    make_folder(tmp_path, ["x/a.png", "b.png"])
    listed = ["x/a.png", str(tmp_path / "b.png"), "", "  x/a.png  ", "gone.png", "https://host/p.jpg?size=1"]
    (tmp_path / "list.txt").write_text("\ufeff" + "\r\n".join(listed), encoding="utf-8")
    items = list(open_source(str(tmp_path / "list.txt")).items())
    assert [item.key for item in items] == ["x/a.png", listed[1], "gone.png", listed[5]]
    assert [item.local for item in items] == [True, True, True, False]
    assert items[0].read() == picture(0) and fault(items[2]).reason == "not-found"


def test_root_moves_a_list(tmp_path):
    make_folder(tmp_path / "images", ["a.png"])
    (tmp_path / "list.txt").write_text("a.png\n")
    (item,) = open_source(str(tmp_path / "list.txt"), SourceOptions(root=str(tmp_path / "images"))).items()
    assert item.read() == picture(0)


def write_rows(path, rows) -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_json_lines_carry_columns_and_survive_broken_rows(tmp_path):
    make_folder(tmp_path, ["a.png", "b.png"])
    rows = [
        {"path": "a.png", "question": "Colour?", "other": 1},
        '{"path": "b.pn',
        {"url": "b.png", "question": None},
        {"text": "no image"},
        [1],
        {"path": "a.png", "question": "Size?"},
        {"path": "a.png", "question": "Colour?", "other": 1},
        {"path": "a.png", "question": "Size?", "id": 7},
    ]
    source = open_source(write_rows(tmp_path / "x.jsonl", rows), SourceOptions(columns=("question", "object")))
    items = list(source.items())
    where = "x.jsonl line"
    assert [item.key for item in items] == [
        "a.png",
        f"{where} 2",
        "b.png",
        f"{where} 4",
        f"{where} 5",
        f"a.png ({where} 6)",
        "7",
    ]
    assert [dict(item.columns) for item in (items[0], items[2], items[6])] == [
        {"question": "Colour?"},
        {},
        {"question": "Size?"},
    ]
    reasons = {number: fault(items[number]).reason for number in (1, 3, 4, 5)}
    assert reasons == {1: "bad-entry", 3: "bad-entry", 4: "bad-entry", 5: "duplicate-key"}
    assert items[6].read() == picture(0)
    assert source.count() == len(items)


def test_asked_columns_of_json_lines(tmp_path):
    make_folder(tmp_path, ["a.png", "b.png"])
    rows = [{"path": "b.png", "pic": "a.png", "name": 3, "q": "?"}, {"pic": "b.png", "name": 4}]
    options = SourceOptions(image_column="pic", key_column="name", required_columns=("q",))
    items = list(open_source(write_rows(tmp_path / "x.jsonl", rows), options).items())
    assert (items[0].key, items[0].read(), items[0].columns) == ("3", picture(0), {"q": "?"})
    assert "no column 'q'" in fault(items[1]).fault


def test_several_inputs_are_one_source(tmp_path, monkeypatch):
    make_folder(tmp_path, ["one/a.png", "one/b.png", "two/b.png", "c.png"])
    monkeypatch.chdir(tmp_path)
    items = list(open_source(["one", "two", "c.png", "c.png", "one"]).items())
    assert [item.key for item in items] == ["one/a.png", "one/b.png", "two/b.png", "c.png"]
    assert [item.read() for item in items] == [picture(number) for number in range(4)]
    assert open_source(["one", "two"]).count() == 3
