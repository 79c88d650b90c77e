"""`--shard` with tars and with every output that shards may share: together the parts are the whole, nothing twice."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from jaxphoton.cli.main import main
from tests.batch.helpers import json_lines, make_folder, make_tar, picture, read_tar

pytestmark = pytest.mark.smoke


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_tars(count: int, samples: int = 4) -> dict[str, bytes]:
    """shards-000.tar, ...; all their members."""
    everything = {}
    for tar in range(count):
        members = {}
        for number in range(samples):
            name = f"{tar}-{number}"
            members |= {f"{name}.png": picture(10 * tar + number), f"{name}.cls": b"7"}
        members[f"lone-{tar}.json"] = b"{}"
        make_tar(Path(f"shards-{tar:03}.tar"), members)
        everything |= members
    return everything


def merged(paths: list[str]) -> dict[str, bytes]:
    """All members of tars; none may be in two."""
    whole: dict[str, bytes] = {}
    for path in paths:
        members = read_tar(Path(path))
        assert members and not whole.keys() & members.keys()
        whole |= members
    return whole


def with_texts(members: dict[str, bytes]) -> dict[str, bytes]:
    stems = [name.removesuffix(".png") for name in members if name.endswith(".png")]
    return members | {f"{stem}.txt": f"Ein schöner Kreis: {stem}".encode() for stem in stems}


def test_a_pattern_is_a_tar_for_each_tar(model, here):
    members = make_tars(3)
    assert main(["caption", "shards-{000..002}.tar", "--out", "captioned-%05d.tar", "--quiet"]) == 0
    made = [f"captioned-{number:05}.tar" for number in range(3)]
    assert sorted(path.name for path in here.glob("captioned*")) == ["captioned-%05d.tar.journal", *made]
    assert merged(made) == with_texts(members)
    assert set(read_tar(Path("captioned-00001.tar"))) >= {"1-0.png", "1-0.cls", "1-0.txt", "lone-1.json"}


@pytest.mark.parametrize("tars", [1, 2, 3, 5])
@pytest.mark.parametrize("out", ["captioned-%05d.tar", "captioned-%d.tar", "captioned/", "captioned"])
def test_shards_of_tars_share_a_pattern_or_a_folder(model, here, tars, out):
    members = make_tars(tars)
    form = [] if "%" in out else ["--form", "webdataset"]
    for index in (2, 0, 1):
        assert (
            main(
                [
                    "caption",
                    f"shards-{{000..{tars - 1:03}}}.tar",
                    "--out",
                    out,
                    "--shard",
                    f"{index}/3",
                    *form,
                    "--quiet",
                ]
            )
            == 0
        )
    made = sorted(str(path) for path in here.rglob("*.tar") if "shards-" not in path.name or path.parent != here)
    assert merged(made) == with_texts(members)
    assert len(list(here.glob("*.journal"))) == 3
    # And each again from its journal.
    before = {path: Path(path).read_bytes() for path in made}
    for index in range(3):
        (journal,) = here.glob(f"*.{index}-of-3.journal")
        assert main(["export", str(journal), "--out", out, "--shard", f"{index}/3", *form]) == 0
    assert {path: Path(path).read_bytes() for path in made} == before


def test_shards_of_one_tar_to_files_of_their_own(model, here):
    members = make_tars(1, samples=12)
    for index in range(3):
        assert (
            main(["caption", "shards-000.tar", "--out", f"part-{index}.tar", "--shard", f"{index}/3", "--quiet"]) == 0
        )
    assert merged([f"part-{index}.tar" for index in range(3)]) == with_texts(members)


@pytest.mark.parametrize("out", ["packed-%05d.tar", "packed/"])
def test_shards_of_a_folder_share_a_pattern(model, here, out):
    make_folder(here / "photos", [f"{n}.png" for n in range(12)])
    form = ["--form", "webdataset"] if out.endswith("/") else []
    for index in range(3):
        journal = ["--journal", f"{index}.journal"]
        assert main(["caption", "photos", "--out", out, "--shard", f"{index}/3", *form, *journal, "--quiet"]) == 0
    made = sorted(str(path) for path in here.rglob("*.tar"))
    assert merged(made) == with_texts({f"{n}.png": picture(n) for n in range(12)}) and len(made) == 3


def test_shards_of_texts_share_a_folder_while_they_run(model, here, monkeypatch):
    make_folder(here / "photos", [f"{n}.png" for n in range(12)])
    command = ["caption", "photos", "--out", "texts", "--quiet", "--shard"]
    answer, codes = model.answer, []

    def at_the_same_time(jobs):
        monkeypatch.setattr(model, "answer", answer)
        codes.append(main([*command, "1/2"]))
        yield from answer(jobs)

    monkeypatch.setattr(model, "answer", at_the_same_time)
    assert main([*command, "0/2"]) == 0 and codes == [0]
    assert len(os.listdir("texts")) == 12


def test_one_file_made_by_another_shard_meanwhile(model, here, monkeypatch, capsys):
    make_folder(here / "photos", [f"{n}.png" for n in range(12)])
    command = ["caption", "photos", "--out", "all.jsonl", "--quiet", "--shard"]
    answer = model.answer

    def at_the_same_time(jobs):
        monkeypatch.setattr(model, "answer", answer)
        assert main([*command, "1/2", "--journal", "1.journal"]) == 0
        yield from answer(jobs)

    monkeypatch.setattr(model, "answer", at_the_same_time)
    assert main([*command, "0/2", "--journal", "0.journal"]) == 1
    assert "made by another run meanwhile" in capsys.readouterr().err
    others = {line["key"] for line in json_lines(Path("all.jsonl"))}
    assert main(["export", "0.journal", "--out", "-"]) == 0
    own = {json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()}
    assert len(own | others) == 12 == len(own) + len(others)


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("shards-{000..001}.tar", "captioned.tar", "name a folder, or a pattern"),
        ("shards-{000..001}.tar", "captioned-{000..001}.tar", "named by one number"),
        ("shards-*.tar", "captioned-*.tar", "named by one number"),
        ("shards-000.tar", "captioned-%s.tar", "named by one number"),
        ("shards-000.tar", "captioned-%5d.tar", "named by one number"),
        ("shards-000.tar", "captioned-%05d-%05d.tar", "named by one number"),
        ("shards-000.tar", "100%.tar", "named by one number"),
        ("photos", "packed-%05d-of-%05d.tar", "named by one number"),
        ("photos", "packed-{0..7}.tar", "named by one number"),
        ("photos", "captions-%05d.jsonl", "only tars"),
        ("shards-{000..001}.tar", "shards-%03d.tar", "is a tar that was read"),
        ("shards-000.tar", "shards-000.tar", "is a tar that was read"),
        ("shards-{000..001}.tar", ".", "is a tar that was read"),
    ],
)
def test_names_that_would_not_do_are_refused_before_the_work(model, here, capsys, source, out, message):
    make_tars(2)
    make_folder(here / "photos", ["a.png"])
    before = sorted(os.listdir())
    assert main(["caption", source, "--out", out, "--form", "jsonl" if out.endswith("jsonl") else "webdataset"]) == 1
    assert message in capsys.readouterr().err and not model.calls and sorted(os.listdir()) == before


def test_one_tar_is_not_for_two_shards(model, here, capsys):
    make_tars(1)
    command = ["caption", "shards-000.tar", "--out", "x.tar", "--quiet", "--shard"]
    assert main([*command, "0/2"]) == 0
    before = Path("x.tar").read_bytes()
    assert main([*command, "1/2"]) == 1
    assert 'shard was "0/2"' in capsys.readouterr().err and Path("x.tar").read_bytes() == before
    assert main([*command, "0/2"]) == 0


def test_results_whose_images_are_gone_are_told(model, here, capsys):
    make_tars(1)
    assert main(["caption", "shards-000.tar", "--out", "x.tar", "--quiet"]) == 0
    make_tar(Path("shards-000.tar"), {"0-1.png": picture(1)})
    assert main(["caption", "shards-000.tar", "--out", "x.tar", "--quiet"]) == 2
    assert {line["key"] for line in json_lines(Path("x.tar.failures.jsonl"))} == {
        f"shards-000/0-{n}" for n in (0, 2, 3)
    }
    make_folder(here / "photos", ["a.png", "b.png"])
    assert main(["caption", "photos", "--out", "y.tar", "--quiet"]) == 0
    Path("photos/a.png").unlink()
    assert main(["caption", "photos", "--out", "y.tar", "--quiet"]) == 2
    assert [line["key"] for line in json_lines(Path("y.tar.failures.jsonl"))] == ["a.png"]


def test_links_and_joined_archives_come_back_whole(model, here):
    with tarfile.open("hard.tar", "w") as tar:
        Path("1.png").write_bytes(picture(1))
        os.link("1.png", "2.png")
        for name in ("1.png", "2.png"):
            tar.add(name)
    make_tar(Path("b.tar"), {"4.png": picture(4)})
    Path("both.tar").write_bytes(Path("hard.tar").read_bytes() + Path("b.tar").read_bytes())
    assert main(["caption", "both.tar", "--out", "out.tar", "--quiet"]) == 0
    assert read_tar(Path("out.tar")) == with_texts({"1.png": picture(1), "2.png": picture(1), "4.png": picture(4)})
    for index in range(2):
        assert main(["caption", "both.tar", "--out", f"{index}.tar", "--shard", f"{index}/2", "--quiet"]) == 0
    parts = [path for path in ("0.tar", "1.tar") if os.path.exists(path)]
    assert merged(parts) == read_tar(Path("out.tar"))


def test_labels_of_shards_have_the_same_classes(model, here, capsys):
    make_folder(here / "p", ["a.png", "b.png", "c.png", "d.png"])
    rows = [{"image": f"p/{name}.png", "label": f"a {name}"} for name in "abcd"]
    Path("l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = ["detect", "l.jsonl", "--object", "{label}", "--out", "boxes/", "--form", "yolo", "--quiet"]
    assert main([*whole, "--shard", "0/2"]) == 1
    assert "yolo is for a whole run" in capsys.readouterr().err and not Path("boxes").exists()
    assert main(whole) == 0
    assert Path("boxes/classes.txt").read_text().splitlines() == ["a a", "a b", "a c", "a d"]
    for shard in ("0/2", "1/2"):
        assert main(["detect", "p", "--object", "cat", "--out", "cats/", "--form", "yolo", "--shard", shard]) == 0
    assert len(list(Path("cats/labels").iterdir())) == 4


@pytest.mark.parametrize("out", ["c-%02d.tar", "tars/"])
@pytest.mark.parametrize("spec", ["shards-{000..002}.tar", "p"])
def test_another_number_of_shards_replaces_nothing(model, here, capsys, spec, out):
    make_tars(3)
    make_folder(here / "p", [f"{number}.png" for number in range(6)])
    command = ["caption", spec, "--out", out, "--form", "webdataset", "--quiet"]
    for _ in range(2):  # the same again goes on
        for shard in ("0/2", "1/2"):
            assert main([*command, "--shard", shard]) == 0
    made = {path: path.read_bytes() for path in (*here.glob("c-*.tar"), *here.glob("tars/*.tar"))}
    calls = len(model.calls)
    assert len(made) >= 2 and main([*command, "--shard", "0/3"]) == 1
    assert "not from this shard" in capsys.readouterr().err and len(model.calls) == calls
    assert {path: path.read_bytes() for path in made} == made
