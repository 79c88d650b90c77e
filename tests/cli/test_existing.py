"""Texts that are there before a run: with `--existing skip` nobody is asked for them again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.cli.main import main
from tests.batch.helpers import json_lines, make_folder, make_tar, picture, read_tar

pytestmark = pytest.mark.smoke


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Five images; two of them have a text, one an empty one."""
    root = make_folder(tmp_path / "photos", [f"{n}.png" for n in range(4)] + ["sub/4.png"])
    (root / "1.txt").write_text("old one\n")
    (root / "sub" / "4.txt").write_bytes("ält".encode("latin-1"))
    (root / "2.txt").write_text(" \n")
    monkeypatch.chdir(tmp_path)
    return root


def asked(model) -> list[str]:
    names = sorted({name for name, *_ in model.calls})
    model.calls.clear()
    return names


def test_images_with_a_text_are_not_asked_about(model, photos, tmp_path, capsys):
    command = ["caption", "photos", "--out", "photos", "--quiet"]
    assert main(command) == 0
    assert asked(model) == ["0.png", "2.png", "3.png"] and "2 texts that were there already" in capsys.readouterr().err
    assert (photos / "1.txt").read_text() == "old one\n" and (photos / "sub" / "4.txt").read_bytes() == b"\xe4lt"
    assert (photos / "2.txt").read_text() == "Ein schöner Kreis: 2\n"
    # Again: nothing; and what was only in the journal comes back without being asked.
    (photos / "0.txt").unlink()
    assert main(command) == 0
    assert asked(model) == [] and (photos / "0.txt").read_text() == "Ein schöner Kreis: 0\n"
    errors = capsys.readouterr().err
    assert "nothing is left to do" in errors and "2 texts that were there already" in errors
    # A text that goes is asked for.
    (photos / "1.txt").unlink()
    assert main(command) == 0
    assert asked(model) == ["1.png"] and not list(tmp_path.glob("*failures*"))


def test_all_texts_exist(model, photos, capsys):
    for number in (0, 2, 3):
        (photos / f"{number}.txt").write_text("old\n")
    assert main(["caption", "photos", "--out", "photos"]) == 0
    assert asked(model) == [] and model.loaded == {} and "5 texts" in capsys.readouterr().err


def test_a_limit_counts_what_is_kept(model, photos):
    assert main(["caption", "photos", "--out", "photos", "--limit", "2", "--quiet"]) == 0
    assert asked(model) == ["0.png"]


@pytest.mark.parametrize("existing", ["overwrite", "append", "prepend"])
def test_other_ways_ask_about_all(model, photos, existing):
    (photos / "sub" / "4.txt").write_text("old four")
    prompt = ["--prompt", "In other words: {caption}", "--existing", existing]
    assert main(["caption", "photos", "--out", "photos", *prompt, "--quiet"]) == 0
    questions = {arguments["question"] for _, _, arguments, _ in model.calls}
    assert {"In other words: old one", "In other words: old four", "In other words: "} == questions
    assert len(asked(model)) == 5


def test_texts_elsewhere_and_of_another_extension_are_others(model, photos):
    assert main(["caption", "photos", "--out", "texts", "--quiet"]) == 0
    assert len(asked(model)) == 5
    assert main(["caption", "photos", "--out", "photos", "--extension", ".caption", "--quiet"]) == 0
    assert len(asked(model)) == 5
    assert main(["caption", "photos", "--out", "x.jsonl", "--quiet"]) == 0
    assert len(asked(model)) == 5


def test_what_is_no_text_is_asked_for_all_the_same(model, photos):
    tasks = ["--tasks", "caption,detect:cat", "--quiet"]
    assert main(["caption", "photos", "--out", "photos", *tasks]) == 0
    assert len(asked(model)) == 5 and (photos / "1.txt").read_text() == "old one\n"
    with JournalReader("photos.journal") as reader:
        assert all(len(record.results) == 2 for record in reader.records())
    assert main(["caption", "photos", "--out", "j", *tasks, "--extension", ".json"]) == 0
    model.calls.clear()
    assert main(["caption", "photos", "--out", "j", *tasks, "--extension", ".json", "--restart"]) == 0
    assert asked(model) == []


def test_a_failure_without_a_text_stays_one(model, photos):
    (photos / "bad.png").write_bytes(b"junk")
    command = ["caption", "photos", "--out", "photos", "--quiet"]
    assert main(command) == 2
    assert [line["key"] for line in json_lines(Path("photos.failures.jsonl"))] == ["bad.png"]
    assert main(command) == 2


def test_a_run_that_is_cut_off_goes_on(model, photos, monkeypatch):
    command = ["caption", "photos", "--out", "photos", "--quiet"]
    answer = model.answer

    def cut(jobs):
        yield next(iter(answer(jobs)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "answer", cut)
        assert main(command) == 130
    assert not (photos / "3.txt").exists()
    model.calls.clear()
    assert main(command) == 0
    assert len(asked(model)) == 2 and all((photos / f"{n}.txt").read_text().strip() for n in range(4))


TEXTS = {
    "1.png": picture(1),
    "1.txt": b"old",
    "2.png": picture(2),
    "2.txt": b" \n",
    "3.png": picture(3),
    "3.json": b"{}",
}


def test_samples_with_a_text_are_not_asked_about(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # A field of this name is no member.
    make_tar(Path("in.tar"), TEXTS | {"4.png": picture(4), "4.json": b'{"txt": "field"}'})
    assert main(["caption", "in.tar", "--out", "out.tar", "--quiet"]) == 0
    made = read_tar(Path("out.tar"))
    assert made["1.txt"] == b"old" and made["2.txt"] and made["3.txt"] and made["4.txt"]
    assert len(asked(model)) == 3 and "1 text that was there already" in capsys.readouterr().err
    for existing in ("overwrite", "append"):
        command = ["caption", "in.tar", "--out", f"{existing}.tar", "--existing", existing, "--quiet"]
        assert main(command) == 0 and len(asked(model)) == 4
    assert read_tar(Path("append.tar"))["1.txt"].startswith(b"old\nEin")


def test_samples_whose_json_has_the_answers(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = {"re_caption": "old", "objects": [{"object": "cat", "x_min": 0, "y_min": 0, "x_max": 1, "y_max": 1}]}
    members = {"1.png": picture(1), "1.json": json.dumps(theirs).encode(), "2.png": picture(2), "2.json": b'{"a": 1}'}
    make_tar(Path("in.tar"), members | {"3.png": picture(3), "3.json": b'{"re_caption": "", "objects": []}'})
    command = ["caption", "in.tar", "--extension", ".json", "--quiet"]
    assert main([*command, "--out", "a.tar"]) == 0
    assert len(asked(model)) == 2
    assert main([*command, "--out", "b.tar", "--tasks", "caption,detect:cat"]) == 0
    assert len(asked(model)) == 2 and json.loads(read_tar(Path("b.tar"))["1.json"]) == theirs
    assert main([*command, "--out", "c.tar", "--tasks", "caption,point:cat"]) == 0
    assert len(asked(model)) == 3
    (one, two, three) = (json.loads(read_tar(Path("c.tar"))[f"{n}.json"]) for n in (1, 2, 3))
    assert one["re_caption"] == "old" and one["points"] and two["a"] == 1 and three["re_caption"]
    assert one.keys() == three.keys() == two.keys() - {"a"}  # empty fields too


def test_a_table_of_several_tars_is_packed_whatever_it_came_with(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "in", ["1.png"])
    (tmp_path / "in" / "1.txt").write_text("old")
    assert main(["caption", "in", "--out", "out.tar", "--quiet"]) == 0
    assert len(asked(model)) == 1 and read_tar(Path("out.tar"))["1.txt"]
