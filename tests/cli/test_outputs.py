"""Whatever `--out`, `--journal` and `--report` are: the right files, nothing lost, and no traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxphoton.batch.sources import Item
from jaxphoton.cli.main import main
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from tests.batch.helpers import json_lines, make_folder, picture
from tests.models.joycaption.drawn import SMALL

pytestmark = pytest.mark.smoke


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder with a good image and a bad one, and the current one."""
    root = make_folder(tmp_path / "photos", ["one.png"])
    (root / "bad.jpg").write_text("junk")
    monkeypatch.chdir(root)
    return root


def failures(path: Path) -> dict[str, str]:
    """Key -> reason."""
    return {line["key"]: line["reason"] for line in json_lines(path)}


@pytest.mark.parametrize("out", [".", "./", "../photos", "../photos/", "../photos/.", "sub/..", "../link"])
def test_a_folder_is_its_own_output_however_it_is_called(model, photos, out):
    (photos / "sub").mkdir()
    (photos.parent / "link").symlink_to(photos)
    assert main(["caption", ".", "--out", out, "--quiet"]) == 2
    name = "link" if out.endswith("link") else "photos"
    assert sorted(os.listdir(photos)) == ["bad.jpg", "one.png", "one.txt", "sub"]
    beside = {"link", "photos", f"{name}.journal", f"{name}.failures.jsonl"}
    assert set(os.listdir(photos.parent)) == beside
    assert failures(photos.parent / f"{name}.failures.jsonl") == {"bad.jpg": "not-an-image"}


def test_the_folder_above(model, photos):
    (photos / "in").mkdir()
    (photos / "one.png").rename(photos / "in" / "one.png")
    os.chdir(photos / "in")
    assert main(["caption", ".", "--out", "..", "--quiet"]) == 0
    assert (photos / "one.txt").exists() and (photos.parent / "photos.journal").exists()


@pytest.mark.parametrize("out", ["texts.v2/", "texts.jsonl/", "texts/", "there.v2", "there.tar"])
def test_folders_with_a_dot(model, photos, out):
    for name in ("there.v2", "there.tar"):
        (photos / name).mkdir()
    assert main(["caption", "one.png", "--out", out, "--quiet"]) == 0
    assert (photos / out / "one.txt").exists() and (photos / f"{out.rstrip('/')}.journal").exists()
    assert main(["export", f"{out.rstrip('/')}.journal", "--out", "copy.v2/"]) == 0
    assert (photos / "copy.v2" / "one.txt").exists()


def test_a_dash_is_standard_output(model, photos, capsys):
    assert main(["caption", ".", "--out", "-", "--quiet"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["key"] for line in lines] == ["bad.jpg", "one.png"] and set(os.listdir()) == {"bad.jpg", "one.png"}
    assert main(["caption", ".", "--out", "-", "--journal", "run.journal"]) == 2
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines
    assert main(["caption", ".", "--out", "-", "--form", "parquet"]) == 1
    assert main(["export", "run.journal", "--out", "-"]) == 0
    captured = capsys.readouterr()
    assert sorted(json.loads(line)["key"] for line in captured.out.splitlines()) == ["bad.jpg", "one.png"]
    assert "2 images written" in captured.err
    assert main(["export", "run.journal", "--out", "-", "--failures"]) == 0
    assert [json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()] == ["bad.jpg"]
    assert main(["export", "run.journal", "--out", "-", "--form", "coco"]) == 1


@pytest.mark.parametrize("also", [["--out", "x.jsonl"], ["--failures"], ["--out", "-"]])
def test_a_page_of_a_journal_is_instead_of_another_output(model, photos, capsys, also):
    assert main(["caption", "one.png", "--out", "c.jsonl", "--quiet"]) == 0
    assert main(["export", "c.jsonl.journal", "--report", "r.html", *also]) == 1
    assert "--report is instead of" in capsys.readouterr().err
    assert not Path("r.html").exists() and not Path("x.jsonl").exists()


@pytest.mark.parametrize("extension", [".", "txt", ".a/b", ".txt.", ".png"])
def test_extensions_that_are_none(model, photos, capsys, extension):
    assert main(["caption", "one.png", "--out", "x/", "--extension", extension]) == 1
    assert "extension" in capsys.readouterr().err and not model.calls


def test_a_text_that_cannot_be_written_is_a_failure_of_the_run(model, tmp_path, capsys):
    root = make_folder(tmp_path / "p", ["a.png", "a.jpg", "b.png", "c.png"])
    (root / "b.txt").mkdir()
    command = ["caption", str(root), "--out", str(root), "--quiet"]
    assert main(command) == 2
    listed = failures(tmp_path / "p.failures.jsonl")
    assert listed == {listed.keys().__iter__().__next__(): "not-written", "b.png": "not-written"} and len(listed) == 2
    assert sum((root / name).exists() for name in ("a.txt", "c.txt")) == 2
    assert "2 results could not be written" in capsys.readouterr().err
    (root / "b.txt").rmdir()
    (root / "a.jpg").unlink()
    assert main(["export", str(tmp_path / "p.journal"), "--out", str(root)]) == 2  # a.jpg is in the journal
    assert main([*command, "--restart", "--existing", "overwrite"]) == 0
    assert not (tmp_path / "p.failures.jsonl").exists()


def test_failures_of_other_runs_stay(model, tmp_path):
    root = make_folder(tmp_path / "p", ["a.png"])
    for number in range(6):
        (root / f"bad{number}.jpg").write_text("junk")
    texts = ["caption", str(root), "--out", str(tmp_path / "texts"), "--quiet"]
    for shard in ("0/2", "1/2"):
        assert main([*texts, "--shard", shard, "--journal", str(tmp_path / f"part-{shard[0]}.journal")]) == 2
    listed = [failures(tmp_path / f"part-{index}.failures.jsonl") for index in range(2)]
    assert len(listed[0] | listed[1]) == 6 == len(listed[0]) + len(listed[1])
    good = make_folder(tmp_path / "good", ["a.png"])
    assert main(["caption", str(root), "--out", str(tmp_path / "c.jsonl"), "--quiet"]) == 2
    assert main(["caption", str(good), "--out", str(tmp_path / "c.parquet"), "--quiet"]) == 0
    assert main(["caption", str(good), "--out", str(tmp_path / "c"), "--quiet"]) == 0
    assert len(failures(tmp_path / "c.jsonl.failures.jsonl")) == 6


def test_what_is_read_and_what_is_written_are_never_the_same(model, photos, capsys):
    Path("list.txt").write_text("one.png\nlist.png\n")
    Path("list.png").write_bytes(picture(3))
    Path("flags.txt").write_text("--quiet\n")
    Path("outer.txt").write_text("--flagfile=flags.txt\n")
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    for options in (
        ["one.png", "--out", "c.jsonl", "--report", "one.png"],
        ["one.png", "--out", "c.jsonl", "--report", "list.png"],
        ["one.png", "--out", "c.jsonl", "--report", "c.jsonl"],
        ["one.png", "--out", "c.jsonl", "--report", "c.jsonl.journal"],
        ["one.png", "--out", "c.jsonl", "--report", "c.jsonl.failures.jsonl"],
        ["one.png", "--out", "one.png", "--form", "jsonl"],
        ["one.png", "--journal", "one.png"],
        ["one.png", "--journal", "new.png"],
        ["one.png", "--trace", "one.png"],
        ["list.txt", "--out", "list.txt", "--form", "jsonl"],
        ["list.txt", "--out", "c.jsonl", "--report", "list.txt"],
        ["*.txt", "--out", "list.txt", "--form", "parquet"],
        ["one.png", "--prompt-file", "list.txt", "--out", "list.txt", "--form", "jsonl"],
        ["one.png", "--flagfile", "flags.txt", "--out", "flags.txt", "--form", "jsonl"],
        ["one.png", "--flagfile", "outer.txt", "--out", "flags.txt", "--form", "jsonl"],
    ):
        assert main(["caption", *options]) == 1, options
        assert "Traceback" not in capsys.readouterr().err
        assert not model.calls and {path.name: path.read_bytes() for path in photos.iterdir()} == before
    # The list has the name of the text of list.png.
    assert main(["caption", "list.txt", "--out", ".", "--existing", "overwrite", "--quiet"]) == 2
    assert Path("list.txt").read_bytes() == before["list.txt"] and Path("one.txt").exists()
    (listed,) = photos.parent.glob("*.failures.jsonl")
    assert failures(listed) == {"list.png": "not-written"}


def test_a_shards_file_is_not_anothers(model, tmp_path, capsys):
    root = make_folder(tmp_path / "p", [f"{n}.png" for n in range(8)])
    out = tmp_path / "c.jsonl"
    command = ["caption", str(root), "--out", str(out), "--quiet", "--journal"]
    assert main([*command, str(tmp_path / "0.journal"), "--shard", "0/2"]) == 0
    first = out.read_bytes()
    assert main([*command, str(tmp_path / "1.journal"), "--shard", "1/2"]) == 1
    assert out.read_bytes() == first and "not from this shard" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "0.journal"), "--shard", "0/2"]) == 0  # and its own may be made again


WORDS = ["photos", "one.png", "bad.jpg", "x", "x.jsonl", "x.tar", "%d.tar", "%s.tar", "%", "x.v2", ".", "..", "-", "~"]
PARTS = st.sampled_from(
    [*WORDS, "", " ", "{1..2}", "*", "a" * 256, "\u00e9", ".hidden", ".jsonl", "link", "x.html", "x.json"]
)
PLACES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@given(out=PLACES | st.none(), journal=PLACES | st.none(), report=PLACES | st.none(), shard=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_place_is_a_traceback_or_costs_an_image(model, out, journal, report, shard):
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chdir(folder)
            root = make_folder(Path("photos"), ["one.png"])
            Path("link").symlink_to("photos")
            options = {"out": out, "journal": journal, "report": report, "shard": "0/1" if shard else None}
            given_ = [f"--{name}={value}" for name, value in options.items() if value is not None]
            assert main(["caption", "photos", "--quiet", *given_]) in (0, 1, 2)
            assert (root / "one.png").read_bytes() == picture(0)
        finally:
            os.chdir(here)


def test_a_disk_that_becomes_full(model, tmp_path, monkeypatch, capsys):
    root = make_folder(tmp_path / "p", [f"{n}.png" for n in range(9)])
    command = ["caption", str(root), "--out", str(tmp_path / "texts"), "--quiet"]
    real, room = os.replace, 4

    def replace(source, target):
        nonlocal room
        room -= 1
        if room < 0 and str(target).endswith(".txt"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        assert main(command) == 2
    assert len(list((tmp_path / "texts").iterdir())) == 4  # and no drafts
    assert set(failures(tmp_path / "texts.failures.jsonl").values()) == {"not-written"}
    assert "No space left" in capsys.readouterr().err
    model.calls.clear()
    assert main(command) == 0
    assert not model.calls and len(list((tmp_path / "texts").iterdir())) == 9
    assert not (tmp_path / "texts.failures.jsonl").exists()


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("NOT TESTED: disks that are read-only or full; it needs the right to mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_read_only(model, disk, tmp_path, capsys):
    make_folder(disk / "p", ["one.png"])
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for options in (
        ["--out", str(disk / "p"), "--journal", str(tmp_path / "j")],
        ["--out", str(disk)],
        ["--out", str(disk / "x.jsonl")],
        ["--out", str(tmp_path / "x.jsonl"), "--journal", str(disk / "j")],
        ["--out", str(tmp_path / "x.jsonl"), "--report", str(disk / "x.html")],
    ):
        assert main(["caption", str(disk / "p"), *options]) == 1
        captured = capsys.readouterr().err
        assert "cannot be written: Read-only file system" in captured and len(captured.splitlines()) == 1
    assert not model.calls and not list(tmp_path.glob("*.jsonl*"))


def test_a_full_disk(model, disk, tmp_path, capsys):
    root = make_folder(tmp_path / "p", [f"{n}.png" for n in range(600)])
    with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(4096))
    command = ["caption", str(root), "--out", str(disk / "x.jsonl"), "--quiet"]
    assert main(command) == 1
    assert "cannot be written: No space left" in capsys.readouterr().err and not model.calls
    # Room for the beginning of the journal only.
    os.truncate(disk / "filler", 192 << 10)
    assert main(command) == 1
    assert re.search(r"x\.jsonl\.journal: (No space left|the disk is full)", capsys.readouterr().err)
    done = (disk / "x.jsonl.journal").read_bytes()
    assert done.endswith(b"\n") and 0 < done.count(b"\n") - 1 < 600
    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    model.calls.clear()
    assert main(command) == 0
    assert len(model.calls) == 600 - (done.count(b"\n") - 1) and len(json_lines(disk / "x.jsonl")) == 600
    shutil.rmtree(root)


@pytest.mark.parametrize("command", [["caption"], ["detect", "--object", "cat"]])
def test_a_package_that_the_output_needs_is_missed_before_the_work(model, photos, monkeypatch, capsys, command):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main([*command, ".", "--out", "x.parquet"]) == 1
    assert "pip install 'jaxphoton[parquet]'" in capsys.readouterr().err
    assert not model.loaded and sorted(os.listdir(photos)) == ["bad.jpg", "one.png"]


@pytest.mark.parametrize(
    "command, fault",
    [
        (["segment", "--object", "cat"], "this model has no prompt for 'segment'"),
        (["segment", "--object", "{name}"], "this model has no prompt for 'segment'"),
        (["caption", "--tasks", "caption,segment:cat"], "this model has no prompt for 'segment'"),
        (["query", "--question", "Why?", "--reasoning"], "this model cannot reason"),
        (["caption", "--length", "long"], "length must be one of 'short', 'normal', not 'long'"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--out", "x.jsonl"], ["--replicas", "2"]])
def test_what_the_model_cannot_do_is_said_before_it_is_loaded(model, photos, capsys, command, fault, more):
    assert main([*command, ".", "--model", "small", *more]) == 1
    assert f"jaxphoton {command[0]}: {fault}" in capsys.readouterr().err
    assert not model.loaded and sorted(os.listdir(photos)) == ["bad.jpg", "one.png"]


@pytest.mark.parametrize(
    "command",
    [
        ["detect", "--object", "cat"],
        ["point", "--object", "{name}"],
        ["segment", "--object", "cat"],
        ["caption", "--tasks", "caption,query:Why?,detect:cat"],
    ],
)
@pytest.mark.parametrize("more", [[], ["--out", "x.jsonl"], ["--replicas", "2"]])
def test_a_skill_that_a_family_has_not_is_refused_by_name(model, photos, capsys, monkeypatch, command, more):
    monkeypatch.setattr("jaxphoton.weights.hub.check", lambda path: JoyCaptionFamily(SMALL))
    monkeypatch.setattr(Item, "read", lambda item: pytest.fail(f"{item.key} was read"))
    skill = "detect" if command[0] == "caption" else command[0]
    assert main([*command, ".", "--model", "joycaption", *more]) == 1
    errors = capsys.readouterr().err
    said = f"this model has no prompt for '{skill}'; it has: caption, query, chat"
    assert errors == f"jaxphoton {command[0]}: {said}\n"
    assert not model.loaded and sorted(os.listdir(photos)) == ["bad.jpg", "one.png"]


def test_a_dry_run_refuses_what_the_run_would(photos, capsys):
    assert main(["segment", "--object", "cat", ".", "--model", "moondream-0.5b", "--dry-run"]) == 1
    assert "this model has no prompt for 'segment'; it has:" in capsys.readouterr().err
