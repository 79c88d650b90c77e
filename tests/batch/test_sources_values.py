"""Rows whose image is bytes, base64, a data address, a list or a struct."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from jaxphoton.batch.sources import SourceOptions, lists, open_source
from tests.batch.helpers import fault, make_folder, make_table, picture

PNG = picture(3)
BASE64 = base64.b64encode(PNG).decode()


def encoded(form: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


TEXTS = {
    "plain": BASE64,
    "data": f"data:image/png;base64,{BASE64}",
    "data without a type": f"data:;base64,{BASE64}",
    "data with parameters": f"DATA:image/png;name=a.png;charset=utf-8;BASE64,{BASE64}",
    "without padding": BASE64.rstrip("="),
    "in lines": "\n".join(BASE64[n : n + 20] for n in range(0, len(BASE64), 20)),
    "of the web": base64.urlsafe_b64encode(PNG).decode(),
    "percent": "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
}


def one_row(tmp_path, value, kind, column="image", **options):
    """The item of the only row, in a table or in JSON lines."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        path = make_table(tmp_path / "t.parquet", {column: [value]})
    else:
        path = str(tmp_path / "t.jsonl")
        (tmp_path / "t.jsonl").write_text(json.dumps({column: value}) + "\n")
    (item,) = open_source(path, SourceOptions(**options)).items()
    return item


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("name", TEXTS)
def test_base64_is_the_image_and_nowhere_a_path(tmp_path, kind, name):
    item = one_row(tmp_path, TEXTS[name], kind)
    assert item.read() == PNG and not item.local
    assert item.key in ("t/0", "t/1") and len(item.path) < 300 and BASE64[:30] not in item.path


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_base64_of_the_usual_formats(tmp_path, form):
    # That of a JPEG begins like an absolute path: /9j/4AAQ...
    assert Image.open(io.BytesIO(one_row(tmp_path, encoded(form), "jsonl").read())).format == form


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("column", ["image", "images", "img"])
@pytest.mark.parametrize("several", [1, 3])
def test_a_list_is_its_first_image_with_a_warning(tmp_path, kind, column, several):
    make_folder(tmp_path, ["0.png", "1.png", "2.png"])
    if column == "img" and kind == "parquet":
        column = "image_path"
    item = one_row(tmp_path, [f"{n}.png" for n in range(several)], kind, column)
    assert item.read() == picture(0) and item.local
    assert item.notes == (("first of 3 images",) if several == 3 else ())
    assert item.key == ("t/0" if kind == "parquet" else "0.png")


STRUCTS = [
    {"bytes": PNG, "path": None},
    {"bytes": PNG, "path": "elsewhere.png"},
    {"bytes": None, "path": "a.png"},
    [{"bytes": PNG, "path": None}],
    [None, {"bytes": PNG, "path": "x.png"}],
    [{"bytes": None, "path": "a.png"}],
    {"url": TEXTS["data"]},
    [{"image_url": {"url": TEXTS["data"]}}],
    [BASE64],
]


@pytest.mark.parametrize("number", range(len(STRUCTS)))
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_structs_and_lists_of_them(tmp_path, kind, number):
    (tmp_path / "a.png").write_bytes(PNG)
    value = STRUCTS[number]
    if kind == "jsonl":
        value = json.loads(json.dumps(value, default=lambda data: base64.b64encode(data).decode()))
    assert one_row(tmp_path, value, kind).read() == PNG


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("data:image/png;base64,iVBOR*w0KG", "damaged base64"),
        ("data:image/png", "without a comma"),
        ("x" * 50_000, "neither a path nor an image"),
        ("https://host/" + "x" * 50_000, "neither a path nor an image"),
        ([[[1, 2, 3], [4, 5, 6]]], "list"),
        ([1, 2, 3], "list"),
        (1.5, "float"),
        (True, "bool"),
    ],
)
def test_what_is_no_image_says_so_in_few_words(tmp_path, kind, value, word):
    item = one_row(tmp_path, value, kind, image_column="image")
    error = fault(item)
    assert error.reason == "bad-entry"
    assert (word in error.fault or "no image column" in error.fault) and len(str(error)) < 500


@pytest.mark.parametrize("value", [None, "", [], [None], {"bytes": None, "path": None}, b""])
def test_rows_without_an_image(tmp_path, value):
    assert fault(one_row(tmp_path, [value, b"x"][0:1][0], "parquet")).reason == "bad-entry" if value else True
    pytest.importorskip("pyarrow")
    path = make_table(tmp_path / "v.parquet", {"image": [value, None], "n": [1, 2]})
    assert [fault(item).fault for item in open_source(path).items()] == ["no image in this row"] * 2


def test_paths_that_look_a_little_like_base64_are_paths(tmp_path):
    names = ["9j/4AAQSkZJRgABAQAAAQABAAD.png", "iVBORw0KGgo.png", "R0lGODlh", "data.png", "data/x.png"]
    make_folder(tmp_path, names)
    (tmp_path / "l.txt").write_text("\n".join(names))
    (tmp_path / "l.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    for form in ("txt", "jsonl"):
        items = list(open_source(str(tmp_path / f"l.{form}")).items())
        assert [item.key for item in items] == names
        assert [item.read() for item in items] == [picture(n) for n in range(len(names))]


def test_a_list_of_data_addresses_has_numbers_as_keys(tmp_path):
    (tmp_path / "l.txt").write_text(f"{TEXTS['data']}\n\n{BASE64}\n{TEXTS['data']}\n")
    items = list(open_source(str(tmp_path / "l.txt")).items())
    assert [(item.key, item.read()) for item in items] == [("l/1", PNG), ("l/3", PNG), ("l/4", PNG)]


def test_ids_stay_keys_of_embedded_images(tmp_path):
    rows = [{"id": 7, "image": BASE64}, {"image": BASE64, "key": "k"}]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [item.key for item in open_source(str(tmp_path / "l.jsonl")).items()] == ["7", "k"]


def test_lines_that_cannot_be_held_or_read_are_failures_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "_LINE_BYTES", 3000)
    monkeypatch.setattr(lists, "_CHUNK", 100)
    make_folder(tmp_path, ["a.png", "b.png"])
    deep = '{"image": ' + "[" * 1200 + "]" * 1200 + "}"
    (tmp_path / "l.jsonl").write_text(f'{{"image": "a.png"}}\n{"x" * 9000}\n{deep}\n{{"image": "b.png"}}')
    items = list(open_source(str(tmp_path / "l.jsonl")).items())
    # From Python 3.12 on the third line can be read: it has a number then, and still no image.
    assert [item.key for item in items if item is not items[2]] == ["a.png", "l.jsonl line 2", "b.png"]
    assert {fault(item).reason for item in items[1:3]} == {"bad-entry"}
    many = {f"column {n}" * 50: 1 for n in range(4)}
    (tmp_path / "m.jsonl").write_text(json.dumps(many) + "\n")
    (item,) = open_source(str(tmp_path / "m.jsonl")).items()
    assert len(str(fault(item))) < 800
