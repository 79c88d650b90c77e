"""Tars as those read them who train on them: Hugging Face datasets, offline, and plain tarfile."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from jaxphoton.batch.exports import ExportOptions, export
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.sources import open_source
from tests.batch.helpers import caption, make_folder, make_journal, make_tar, picture, read_tar

datasets = pytest.importorskip("datasets", reason="NOT TESTED: tars in datasets; it is in the dev extra")


def exported(source, tmp_path: Path, out: str = "x.tar", **options) -> tuple[Path, list[str]]:
    """The tar of a journal in which every image has a caption, and what there was to note."""
    journal = make_journal(tmp_path / "journal", [caption(item) for item in source.items()])
    report = export(journal, tmp_path / out, source=source, form="webdataset", options=ExportOptions(**options))
    assert report.lost == 0 and report.written > 0, report.problems
    return tmp_path / out, report.notes


def load(path: Path, tmp_path: Path) -> list[dict]:
    loaded = datasets.load_dataset("webdataset", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    return list(loaded)


def mixed(tmp_path: Path) -> Path:
    """Nine images: seven of one form, then another, as it happens where folders are put together."""
    root = make_folder(tmp_path / "in", [f"a{n}.png" for n in range(7)])
    (root / "b.jpeg").write_bytes(picture(50, "JPEG"))
    (root / "c.webp").write_bytes(picture(60, "WEBP"))
    return root


def test_packed_images_of_several_forms_under_one_suffix(tmp_path):
    path, notes = exported(open_source(str(mixed(tmp_path))), tmp_path, image_suffix="jpg")
    rows = load(path, tmp_path)
    assert notes == [] and len(rows) == 9
    assert all(row["jpg"].size == (8, 6) and row["txt"].startswith("a picture: ") for row in rows)
    images = {name: data for name, data in read_tar(path).items() if name.endswith(".jpg")}
    forms = {name: Image.open(io.BytesIO(data)).format for name, data in images.items()}
    assert set(forms.values()) == {"JPEG"} and len(forms) == 9
    assert read_tar(path)["b.jpg"] == picture(50, "JPEG")  # a JPEG as it is
    assert rows[0]["jpg"].convert("RGB").getpixel((3, 3)) == pytest.approx((0, 0, 40), abs=3)


def test_what_is_packed_as_jpeg_is_upright_and_has_no_transparency(tmp_path):
    (tmp_path / "in").mkdir()
    turned, clear = Image.new("RGB", (8, 6)), Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "in" / "a.png", exif=exif)
    clear.save(tmp_path / "in" / "b.png")
    path, _ = exported(open_source(str(tmp_path / "in")), tmp_path, image_suffix="jpg")
    one, two = (Image.open(io.BytesIO(read_tar(path)[name])) for name in ("a.jpg", "b.jpg"))
    assert one.size == (6, 8) and not one.getexif().get(0x0112)
    assert two.getpixel((0, 0)) == (255, 255, 255)


def test_packed_as_they_are_they_come_with_a_warning(tmp_path):
    path, notes = exported(open_source(str(mixed(tmp_path))), tmp_path)
    assert len(notes) == 1 and "7 .png, 1 .jpeg, 1 .webp" in notes[0] and "--image-suffix jpg" in notes[0]
    assert {Path(name).suffix for name in read_tar(path)} == {".png", ".jpeg", ".webp", ".txt"}
    root = make_folder(tmp_path / "same", ["a.png", "b.png"])
    assert exported(open_source(str(root)), tmp_path / "other")[1] == []


def test_texts_stay_in_their_samples_in_a_tar_from_a_mac(tmp_path):
    members = {}
    for number in range(7):
        members |= {f"._{number}.jpg": b"mac", f"{number}.jpg": picture(number, "JPEG"), f"{number}.cls": b"7"}
        if number % 2:
            members[f"{number}.txt"] = b"old"
    source = open_source(str(make_tar(tmp_path / "in.tar", members)))
    path, _ = exported(source, tmp_path, existing="overwrite")
    with tarfile.open(path) as tar:
        names = tar.getnames()
    for number in range(7):
        place = names.index(f"{number}.jpg")
        assert names[place : place + 3] == [f"{number}.jpg", f"{number}.cls", f"{number}.txt"]
    assert set(names) == set(members) | {f"{number}.txt" for number in range(7)}
    rows = load(path, tmp_path)
    assert [row["txt"] for row in rows] == [f"a picture: in/{number}" for number in range(7)]


def test_samples_whose_members_lie_apart_come_back_whole(tmp_path):
    images = {f"{number}.png": picture(number) for number in range(6)}
    source = open_source(str(make_tar(tmp_path / "in.tar", images | {f"{n}.json": b'{"a": 1}' for n in range(6)})))
    path, _ = exported(source, tmp_path)
    rows = load(path, tmp_path)
    assert [(row["json"], row["txt"]) for row in rows] == [({"a": 1}, f"a picture: in/{n}") for n in range(6)]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_json_members_have_the_same_fields_in_every_sample(tmp_path, kind):
    if kind == "folder":
        source = open_source(str(make_folder(tmp_path / "in", [f"{n}.png" for n in range(8)])))
    else:
        made = [{f"{n}.png": picture(n), f"{n}.json": b'{"url": "u"}'} for n in range(8)]
        source = open_source(str(make_tar(tmp_path / "in.tar", {k: v for each in made for k, v in each.items()})))
    box = {"x_min": 0.0, "y_min": 0.0, "x_max": 1.0, "y_max": 1.0}
    records = []
    for number, item in enumerate(source.items()):
        found = {"task": "detect", "object": "cat", "objects": [box] * (number == 0 or number > 5), "tokens": 1}
        said = {"task": "caption", "caption": f"text {number}", "tokens": 1, "finish_reason": "stop"}
        more = {"org_caption": "old", "warnings": ("rotated",)} if number == 7 else {}
        records.append(Record(item.key, "ok", item.path, width=8, height=6, results=(said, found), **more))
    journal = make_journal(tmp_path / "journal", records)
    options = ExportOptions(extension=".json")
    assert export(journal, tmp_path / "x.tar", source=source, options=options).lost == 0
    fields = [json.loads(data) for name, data in read_tar(tmp_path / "x.tar").items() if name.endswith(".json")]
    assert len({tuple(sorted(each)) for each in fields}) == 1 and fields[1]["objects"] == [] and len(fields) == 8
    rows = load(tmp_path / "x.tar", tmp_path)
    assert [row["json"]["re_caption"] for row in rows] == [f"text {n}" for n in range(8)]
    assert [len(row["json"]["objects"]) for row in rows] == [1, 0, 0, 0, 0, 0, 1, 1]
    assert rows[7]["json"]["org_caption"] == "old"


def test_sparse_members_keep_what_they_hold(tmp_path):
    if shutil.which("tar") is None:
        pytest.skip("NOT TESTED: sparse members; there is no tar")
    (tmp_path / "a.png").write_bytes(picture(1))
    with (tmp_path / "a.depth").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    subprocess.run(["tar", "-S", "-cf", "in.tar", "a.png", "a.depth"], cwd=tmp_path, check=True)
    path, _ = exported(open_source(str(tmp_path / "in.tar")), tmp_path)
    assert read_tar(path)["a.depth"] == bytes(1 << 20) + b"end" and read_tar(path)["a.txt"]
