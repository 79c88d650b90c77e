"""Tables: columns, row groups, damage."""

from __future__ import annotations

import pytest

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources import Selection, SourceOptions, open_source
from tests.batch.helpers import fault, make_folder, make_table, picture

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("rows_in_group", [2, 100])
def test_parquet_bytes_structs_and_paths(tmp_path, rows_in_group):
    make_folder(tmp_path, ["p0.png"])
    data = [picture(n) for n in range(5)]
    plain = make_table(tmp_path / "bytes.parquet", {"n": list(range(5)), "jpg": data}, rows_in_group)
    structs = [{"bytes": each, "path": None} for each in data[:3]] + [{"bytes": None, "path": "p0.png"}, None]
    struct = make_table(tmp_path / "struct.parquet", {"image": structs, "caption": list("abcde")}, rows_in_group)
    paths = make_table(tmp_path / "paths.parquet", {"path": ["p0.png", "gone.png", None]}, rows_in_group)
    items = list(open_source(plain).items())
    assert [item.key for item in items] == [f"bytes/{n}" for n in range(5)]
    assert [item.read() for item in items] == data
    items = list(open_source(struct, SourceOptions(columns=("caption", "absent"))).items())
    assert [item.read() for item in items[:4]] == [*data[:3], data[0]]
    assert fault(items[4]).reason == "bad-entry" and items[1].columns == {"caption": "b"}
    items = list(open_source(paths).items())
    assert items[0].local and items[0].read() == data[0]
    assert [fault(item).reason for item in items[1:]] == ["not-found", "bad-entry"]
    assert open_source(plain).count() == 5


def test_parquet_columns_that_are_asked_for(tmp_path):
    columns = {"image": [b"a", b"b", b"c"], "other": [b"x", b"y", b"z"], "id": [7, 8, 7]}
    path = make_table(tmp_path / "t.parquet", columns, 2)
    items = list(open_source(path, SourceOptions(image_column="other", key_column="id")).items())
    assert [item.key for item in items] == ["7", "8", "7 (t/2)"]
    assert items[1].read() == b"y" and fault(items[2]).reason == "duplicate-key"
    for options in (SourceOptions(key_column="no"), SourceOptions(required_columns=("no",))):
        with pytest.raises(SourceError, match="no column 'no' among image, other, id"):
            open_source(path, options)
    with pytest.raises(SourceError, match="no image column"):
        open_source(make_table(tmp_path / "u.parquet", {"text": ["x"]}))


def test_a_damaged_table_fails_and_the_next_goes_on(tmp_path):
    for name in "abc":
        make_table(tmp_path / f"{name}.parquet", {"image": [picture(0), picture(1)]})
    (tmp_path / "b.parquet").write_bytes(b"PAR1" + b"x" * 100)
    source = open_source(f"{tmp_path}/{{a,b,c}}.parquet")
    items = list(source.items())
    assert [item.key for item in items] == ["a/0", "a/1", "b", "c/0", "c/1"] and source.count() == 5
    assert fault(items[2]).reason == "corrupt"


def test_rows_that_are_not_wanted_are_not_read(tmp_path):
    path = make_table(tmp_path / "t.parquet", {"image": [picture(n) for n in range(40)]}, 20)
    done = {f"t/{n}" for n in range(30)}
    source = open_source(path)
    assert [item.key for item in Selection(limit=33).items(source, done.__contains__)] == ["t/30", "t/31", "t/32"]
    # The first row group may be unreadable now.
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[10:200] = bytes(190)
    (tmp_path / "t.parquet").write_bytes(data)
    assert [item.key for item in Selection().items(source, done.__contains__)] == [f"t/{n}" for n in range(30, 40)]


def test_datasets_tables_can_be_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    make_folder(tmp_path, ["a.png"])
    rows = {"image": [Image.new("RGB", (4, 3), "red"), str(tmp_path / "a.png")], "text": ["x", "y"]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "d.parquet"))
    items = list(open_source(str(tmp_path / "d.parquet"), SourceOptions(columns=("text",))).items())
    assert [item.columns["text"] for item in items] == ["x", "y"]
    assert items[1].read() == picture(0) and items[0].read().startswith(b"\x89PNG")
