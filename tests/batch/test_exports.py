"""Round trips: a source, a journal of its items, and every output that makes sense."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.batch.errors import ExportError, SourceError
from jaxphoton.batch.exports import ExportOptions, export, form_of
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.journal.record import Header, Record
from jaxphoton.batch.questions import Questions, parse_questions
from jaxphoton.batch.sources import Item, Source, open_source
from jaxphoton.batch.sources.base import every
from tests.batch.helpers import caption, json_lines, make_folder, make_journal, make_table, make_tar, picture, read_tar

FAILED = Record("bad.png", "failed", "/x/bad.png", reason="corrupt", fault="the image data is damaged")
BOX = {"x_min": 0.25, "y_min": 0.0, "x_max": 0.5, "y_max": 1.0}
OUTSIDE = {"x_min": -0.5, "y_min": 0.5, "x_max": 0.5, "y_max": 1.5}
SEVERAL = Record(
    "d/both.png",
    "ok",
    path="/x/d/both.png",
    width=200,
    height=100,
    results=(
        {"task": "caption", "caption": "two\nlines", "tokens": 4, "finish_reason": "length"},
        {"task": "query", "question": "Why?", "answer": "Because.", "tokens": 2, "finish_reason": "stop"},
        {"task": "detect", "object": "cat", "objects": [BOX, OUTSIDE], "tokens": 9, "finish_reason": "stop"},
        {"task": "detect", "object": "ant", "objects": [], "tokens": 1, "finish_reason": "stop"},
        {"task": "point", "object": "cat", "points": [{"x": 0.5, "y": 0.25}], "tokens": 3, "finish_reason": "stop"},
    ),
    warnings=("rotated",),
    org_caption="old",
)


def captioned(folder, spec, extra=()):
    """A journal in which every image of `spec` has a caption."""
    items = open_source(str(spec)).items()
    return make_journal(folder / "journal", [*(caption(item) for item in items), *extra])


def test_forms_by_suffix(tmp_path):
    forms = {"a.jsonl": "jsonl", "a.parquet": "parquet", "a.JSON": "coco", "a-%05d.tar": "webdataset", "out": "sidecar"}
    assert {out: form_of(out) for out in forms} == forms
    assert form_of(None) == form_of(tmp_path) == "sidecar"
    with pytest.raises(ExportError, match=r"no form has the suffix \.csv"):
        form_of("a.csv")


def test_jsonl(tmp_path):
    one = Record("a.png", "ok", results=({"task": "query", "question": "q", "answer": "ä", "tokens": 1},))
    undecodable = Record(os.fsdecode(b"\xe9.png"), "ok", results=({"task": "caption", "caption": "c"},))
    journal = make_journal(tmp_path / "j", [one, FAILED, SEVERAL, undecodable])
    report = export(journal, tmp_path / "out" / "x.jsonl")
    assert (report.written, report.failed, report.problems) == (4, 1, [])
    first, bad, several, last = json_lines(tmp_path / "out" / "x.jsonl")
    assert (first["key"], first["results"][0]["answer"], first["error"]) == ("a.png", "ä", "")
    assert (bad["key"], bad["error"], bad["reason"]) == ("bad.png", "the image data is damaged", "corrupt")
    shown = [
        {name: row[name] for name in result} for row, result in zip(several["results"], SEVERAL.results, strict=True)
    ]
    assert shown == list(SEVERAL.results) and several["warnings"] == "rotated"
    assert last["key"] == "\\udce9.png"
    export(journal, tmp_path / "failures.jsonl", form="failures")
    failure = {"key": "bad.png", "error": "the image data is damaged", "reason": "corrupt", "path": "/x/bad.png"}
    assert json_lines(tmp_path / "failures.jsonl") == [failure]


def test_sidecars_beside_the_images(tmp_path):
    root = make_folder(tmp_path / "images", ["a.png", "b/c.JPG", "b/c.d.webp"])
    journal = captioned(tmp_path, root, [FAILED])
    report = export(journal, None)
    assert (report.written, report.failed, report.problem_count) == (3, 1, 0)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*.*t*")) == ["a.txt", "b/c.d.txt", "b/c.txt"]
    assert (root / "b" / "c.txt").read_text() == "a picture: b/c.JPG\n"
    again = export(journal, None)
    assert (again.written, again.unchanged) == (0, 3)


def test_sidecars_in_a_folder_of_their_own(tmp_path):
    make_tar(tmp_path / "s.tar", {"x/1.png": picture()})
    items = [*open_source(str(tmp_path / "s.tar")).items()]
    keys = ["../up.png", "/abs/a.png", "https://host/a.png", "t/17", "a.png", "a.jpg"]
    made = [caption(items[0]), *(Record(key, "ok", results=({"task": "caption", "caption": key},)) for key in keys)]
    report = export(make_journal(tmp_path / "j", made), tmp_path / "out", options=ExportOptions(extension=".caption"))
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"s/x/1.caption", "_/up.caption", "abs/a.caption", "host/a.caption", "t/17.caption", "a.caption"}
    assert report.problem_count == 1 and "already that of another image" in report.problems[0]
    report = export(tmp_path / "j", None)
    assert report.problem_count == 7 and "no file here" in report.problems[0]


@pytest.mark.parametrize(
    ("existing", "expected"),
    [("skip", "old"), ("overwrite", "new"), ("append", "old, new"), ("prepend", "new, old")],
)
@pytest.mark.parametrize("before", ["old", "old\n", " \n", ""])
def test_existing_texts(tmp_path, existing, expected, before):
    make_folder(tmp_path / "images", ["a.png"])
    (item,) = open_source(str(tmp_path / "images")).items()
    journal = make_journal(tmp_path / "j", [caption(item, "new")])
    text = tmp_path / "images" / "a.txt"
    text.write_text(before)
    options = ExportOptions(existing=existing, separator=", ")
    for _ in range(3):
        export(journal, None, options=options)
        # What a killed tool left empty is no text.
        assert text.read_text().strip() == (expected if before.strip() else "new")
    assert sorted(path.name for path in text.parent.iterdir()) == ["a.png", "a.txt"]


def test_json_sidecars(tmp_path):
    root = make_folder(tmp_path / "images", ["a.png"])
    journal = captioned(tmp_path, root)
    export(journal, None, options=ExportOptions(extension=".json"))
    assert json.loads((root / "a.json").read_text())["caption"] == "a picture: a.png"
    with pytest.raises(ExportError, match="skipped or overwritten"):
        ExportOptions(extension=".json", existing="append")


def test_a_text_that_cannot_be_written_is_a_problem_of_one(tmp_path):
    root = make_folder(tmp_path / "images", ["a.png", "b.png", "c.png"])
    journal = captioned(tmp_path, root)
    (root / "a.txt").mkdir()
    (root / "b.txt").write_bytes(b"\xff\xfe not UTF-8")
    report = export(journal, None, options=ExportOptions(existing="append"))
    assert (report.written, report.problem_count) == (1, 2)
    assert (root / "b.txt").read_bytes().startswith(b"\xff\xfe") and (root / "c.txt").exists()


def test_parquet_opens_in_pandas_and_datasets(tmp_path):
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    undecodable = Record(os.fsdecode(b"\xe9.png"), "ok")
    journal = make_journal(tmp_path / "j", [SEVERAL, FAILED, undecodable])
    report = export(journal, tmp_path / "x.parquet")
    assert (report.written, report.failed) == (3, 1)
    frame = pandas.read_parquet(tmp_path / "x.parquet")
    assert list(frame.columns[:7]) == ["key", "url", "sha256", "width", "height", "org_caption", "re_caption"]
    assert list(frame["key"]) == ["d/both.png", "bad.png", "\\udce9.png"]
    assert list(frame["finish_reason"]) == ["length", "error", "stop"]
    dataset = datasets.Dataset.from_parquet(str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "cache"))
    row = dataset[0]
    assert (row["re_caption"], row["org_caption"], row["output_tokens"]) == ("two\nlines", "old", 19)
    assert row["objects"] == [{"object": "cat"} | BOX, {"object": "cat"} | OUTSIDE]
    assert row["points"] == [{"object": "cat", "x": 0.5, "y": 0.25}]
    assert row["answers"] == [{"question": "Why?", "answer": "Because."}]
    assert dataset[1]["error"] == "the image data is damaged" and dataset[1]["re_caption"] is None


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    journal = make_journal(tmp_path / "j", [SEVERAL])
    (tmp_path / "t.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExportError, match=r"jaxphoton\[parquet\]"):
        export(journal, tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=r"jaxphoton\[parquet\]"):
        open_source(str(tmp_path / "t.parquet"))


def test_coco(tmp_path):
    unknown = Record("no-size.png", "ok", results=({"task": "detect", "object": "cat", "objects": [BOX]},))
    empty = Record("e.png", "ok", width=5, height=5, results=({"task": "detect", "object": "dog", "objects": []},))
    journal = make_journal(tmp_path / "j", [unknown, empty, FAILED, SEVERAL])
    report = export(journal, tmp_path / "x.json")
    assert (report.written, report.failed, report.problem_count) == (2, 1, 1)
    coco = json.loads((tmp_path / "x.json").read_bytes())
    assert coco["images"] == [
        {"id": 2, "file_name": "d/both.png", "width": 200, "height": 100},
        {"id": 3, "file_name": "e.png", "width": 5, "height": 5},
    ]
    names = [(each["id"], each["name"]) for each in coco["categories"]]
    assert names == [(1, "ant"), (2, "cat"), (3, "dog")]
    boxes = [(each["id"], each["image_id"], each["category_id"], each["bbox"]) for each in coco["annotations"]]
    assert boxes == [(1, 2, 2, [50.0, 0.0, 50.0, 100.0]), (2, 2, 2, [0.0, 50.0, 100.0, 50.0])]
    assert [each["area"] for each in coco["annotations"]] == [5000.0, 5000.0]


def detected(key: str, objects: list, label: str = "cat") -> Record:
    result = {"task": "detect", "object": label, "objects": objects, "tokens": 1, "finish_reason": "stop"}
    return Record(key, "ok", f"/x/{key}", width=40, height=20, results=(result,))


@settings(max_examples=20)
@given(st.permutations([f"{n}.png" for n in range(12)]), st.sets(st.integers(0, 11)), st.integers(1, 12))
def test_ids_in_a_coco_file_depend_on_the_keys_alone(order, broken, part):
    failed = {f"{n}.png" for n in broken}
    header = Header(Questions(parse_questions("detect:cat,detect:ant", {})).description(), "m")

    def ids(records, source=None):
        with tempfile.TemporaryDirectory() as folder:
            journal = make_journal(Path(folder) / "j", records, header)
            export(journal, f"{folder}/x.json", source=source)
            coco = json.loads(Path(f"{folder}/x.json").read_bytes())
        return {each["file_name"]: each["id"] for each in coco["images"]}, coco["categories"]

    records = [Record(key, "failed") if key in failed else detected(key, [BOX]) for key in order]
    whole, categories = ids([detected(f"{n}.png", []) for n in range(12)])
    found, same = ids(records)
    assert found == {key: number for key, number in whole.items() if key not in failed}
    assert (
        same
        == categories
        == [
            {"id": 1, "name": "ant", "supercategory": ""},
            {"id": 2, "name": "cat", "supercategory": ""},
        ]
    )
    # A shard has the ids of the whole, as the source says what that is.
    source = Listed(order)
    shard, _ = ids(records[:part], source)
    assert shard.items() <= whole.items() and not source.read


class Listed(Source):
    """A source that tells its keys."""

    def __init__(self, keys):
        self.keys, self.read = keys, 0

    def items(self, wanted=every):
        for key in self.keys:
            if wanted(key):
                self.read += 1
                yield Item(key, key, bytes)

    def count(self):
        return len(self.keys)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself
def test_pycocotools_opens_a_coco_file(tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco", reason="NO PYCOCOTOOLS: COCO files are NOT opened with it")
    journal = make_journal(tmp_path / "j", [detected("b", [BOX, OUTSIDE]), detected("a", []), detected("c", [BOX])])
    export(journal, tmp_path / "x.json")
    truth = coco.COCO(str(tmp_path / "x.json"))
    truth.info()
    assert truth.getImgIds() == [1, 2, 3] and truth.getCatIds(catNms=["cat"], supNms=[""]) == [1]
    masks = [truth.annToMask(each) for each in truth.loadAnns(truth.getAnnIds(imgIds=2))]
    # 40 x 20 pixels: a quarter of the width, and the lower half of the left half.
    assert [int(mask.sum()) for mask in masks] == [200, 200] and masks[0][:, 10:20].all()
    found = [{"image_id": 2, "category_id": 1, "bbox": [10, 0, 10, 20], "score": 0.9}]
    results = truth.loadRes(found)
    assert int(results.annToMask(results.anns[1]).sum()) == 200
    capsys.readouterr()


def test_yolo(tmp_path):
    empty = Record("e.png", "ok", results=({"task": "detect", "object": "dog", "objects": []},))
    report = export(make_journal(tmp_path / "j", [SEVERAL, empty, FAILED]), tmp_path / "out", form="yolo")
    assert (report.written, report.failed) == (2, 1)
    assert (tmp_path / "out" / "classes.txt").read_text().split() == ["ant", "cat", "dog"]
    yaml = pytest.importorskip("yaml", reason="NO PYYAML: data.yaml is NOT read")
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert data == {"train": "images", "val": "images", "names": {0: "ant", 1: "cat", 2: "dog"}}
    lines = (tmp_path / "out" / "labels" / "d" / "both.txt").read_text().splitlines()
    assert lines == ["1 0.375000 0.500000 0.250000 1.000000", "1 0.250000 0.750000 0.500000 0.500000"]
    assert (tmp_path / "out" / "labels" / "e.txt").read_bytes() == b""
    assert not (tmp_path / "out" / "labels" / "bad.txt").exists()


def test_yolo_labels_of_other_images_keep_the_names_of_their_classes(tmp_path):
    def made(name, *found):
        return make_journal(tmp_path / name, [detected(key, [BOX], label) for key, label in found])

    export(made("j", ("a", "cat"), ("b", "dog")), tmp_path / "out", form="yolo")
    export(made("same", ("c", "dog"), ("d", "cat")), tmp_path / "out", form="yolo")
    for name, found in (("other", [("c", "ant")]), ("fewer", [("a", "cat"), ("b", "cat"), ("c", "cat")])):
        with pytest.raises(ExportError, match=r"labels/.\.txt has other classes than this run"):
            export(made(name, *found), tmp_path / "out", form="yolo")
    assert (tmp_path / "out" / "classes.txt").read_text().split() == ["cat", "dog"]
    assert (tmp_path / "out" / "labels" / "c.txt").read_text().startswith("1 ")
    whole = made("whole", ("a", "ant"), ("b", "dog"), ("c", "dog"), ("d", "ant"))
    export(whole, tmp_path / "out", form="yolo")
    assert (tmp_path / "out" / "classes.txt").read_text().split() == ["ant", "dog"]


@settings(max_examples=20)
@given(st.text(min_size=1))
def test_yolo_names_of_any_kind_are_yaml(name):
    yaml = pytest.importorskip("yaml", reason="NO PYYAML: data.yaml is NOT read")
    for label in (name, "no", "7", "~", 'a "b": \\c', "\u2028\x7f\ufeff\U0001f600"):
        with tempfile.TemporaryDirectory() as folder:
            journal = make_journal(Path(folder) / "j", [detected("a", [BOX], label)])
            export(journal, folder + "/out", form="yolo")
            data = yaml.safe_load(Path(folder, "out", "data.yaml").read_text("utf-8"))
            assert len(Path(folder, "out", "classes.txt").read_text("utf-8").split("\n")) == 2
        assert data["names"] == {0: label.encode("utf-8", "backslashreplace").decode()}


@pytest.mark.parametrize("out", ["x.json", "yolo"])
def test_boxes_of_a_journal_without_any(tmp_path, out):
    journal = captioned(tmp_path, make_folder(tmp_path / "images", ["a.png"]))
    with pytest.raises(ExportError, match="holds no boxes"):
        export(journal, tmp_path / out, form="yolo" if out == "yolo" else None)
    assert not (tmp_path / out).exists()


def test_outputs_never_replace_the_journal_or_the_input(tmp_path):
    pytest.importorskip("pyarrow")
    table = tmp_path / "t.parquet"
    make_table(table, {"image": [picture()]})
    make_tar(tmp_path / "s.tar", {"a.png": picture()})
    journal = captioned(tmp_path, table)
    renamed = journal.rename(tmp_path / "j.jsonl")
    for out, message in ((renamed, "the journal itself"), (table, "where the images came from")):
        with pytest.raises(ExportError, match=message):
            export(renamed, out)
    tars = captioned(tmp_path, tmp_path / "s.tar")
    for out in (tmp_path / "s.tar", tmp_path):
        with pytest.raises(ExportError, match=r"came from|was read"):
            export(tars, out, form="webdataset", source=open_source(str(tmp_path / "s.tar")))
    assert read_tar(tmp_path / "s.tar") == {"a.png": picture()}
    assert export(tars, tmp_path / "j2.jsonl").written == 1


def test_bad_requests(tmp_path):
    journal = make_journal(tmp_path / "j", [SEVERAL])
    calls: list[tuple[dict[str, Any], str]] = [
        ({"out": "x.tar"}, "needs the source"),
        ({"out": "x", "form": "csv"}, "form must be one of"),
        ({"out": None, "form": "coco"}, "needs a place"),
        ({"out": tmp_path / "j" / "x.jsonl"}, "x.jsonl"),
    ]
    for arguments, message in calls:
        with pytest.raises(ExportError, match=message):
            export(journal, **arguments)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"existing": "x"}, "one of skip"),
        ({"extension": "txt"}, "like .txt"),
        ({"extension": ".png"}, "that of an image"),
    ]
    for options, message in wrong:
        with pytest.raises(ExportError, match=message):
            ExportOptions(**options)


def test_damaged_lines_are_in_the_report(tmp_path):
    journal = make_journal(tmp_path / "j", [SEVERAL, FAILED])
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b"{broken\n" + lines[1] + lines[2][:20])
    report = export(journal, tmp_path / "x.jsonl")
    assert report.written == 1 and report.problem_count == 1 and "line 2: not JSON" in report.problems[0]


def test_an_interrupted_export_leaves_the_old_file(tmp_path, monkeypatch):
    journal = make_journal(tmp_path / "j", [SEVERAL, FAILED])
    (tmp_path / "x.jsonl").write_text("old")

    def records(self):
        yield SEVERAL
        raise KeyboardInterrupt

    monkeypatch.setattr(JournalReader, "records", records)
    with pytest.raises(KeyboardInterrupt):
        export(journal, tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j", "x.jsonl"]
