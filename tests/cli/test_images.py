"""The lines a command writes, their keys, and what happens when something is wrong."""

from __future__ import annotations

import json
import os
import sys

import pytest

from jaxphoton.cli.base import CommandError
from jaxphoton.cli.images import find_images
from jaxphoton.cli.main import main

pytestmark = pytest.mark.smoke


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_folder_keys_are_relative_sorted_and_without_hidden_files(folder):
    assert list(find_images([str(folder)])) == ["a.JPG", "b.png", "sub/c.webp"]


def test_files_keep_the_name_given_and_are_always_tried(folder):
    given = [str(folder / "notes.txt"), str(folder / ".hidden.png")]
    assert list(find_images(given)) == given


def test_an_image_given_twice_is_done_once(folder):
    assert len(find_images([str(folder), str(folder)])) == 3


def test_two_files_of_one_key_are_refused(folder):
    (folder / "sub" / "b.png").write_bytes(b"")
    with pytest.raises(CommandError, match="b.png"):
        find_images([str(folder), str(folder / "sub")])


def test_caption_to_stdout(model, folder, capsys):
    assert main(["caption", str(folder)]) == 0
    captured = capsys.readouterr()
    assert lines(captured.out)[0] == {"key": "a.JPG", "caption": "Ein schöner Kreis: a"}
    assert "schöner" in captured.out  # not \\u00f6
    assert [line["key"] for line in lines(captured.out)] == ["a.JPG", "b.png", "sub/c.webp"]
    assert "greedy" in captured.err and "3 images" in captured.err
    assert ("a.JPG", "normal", {"temperature": 0.0}) in model.calls
    assert model.loaded == {"path_or_id": "shapes", "revision": None, "dtype": None}


def test_caption_to_a_file(model, folder, tmp_path, capsys):
    out = tmp_path / "x.jsonl"
    out.write_text("old\n" * 100, encoding="utf-8")
    assert main(["caption", str(folder), "--out", str(out)]) == 0
    assert [line["key"] for line in lines(out.read_text(encoding="utf-8"))] == ["a.JPG", "b.png", "sub/c.webp"]
    assert capsys.readouterr().out.splitlines()[0] == "a.JPG: Ein schöner Kreis: a"


def test_a_bad_image_is_a_line_and_the_rest_goes_on(model, folder, tmp_path, capsys):
    (folder / "bad.png").write_bytes(b"junk")
    out = tmp_path / "x.jsonl"
    assert main(["caption", str(folder), "--out", str(out)]) == 2
    written = lines(out.read_text(encoding="utf-8"))
    assert written[2] == {"key": "bad.png", "error": f"{folder / 'bad.png'}: not an image"}
    assert len(written) == 4 and "caption" in written[3]
    captured = capsys.readouterr()
    assert "1 of 4 images failed" in captured.err
    assert "bad.png: ERROR" in captured.out


def test_a_missing_file_among_others_is_a_line(model, folder, capsys):
    assert main(["caption", str(folder / "b.png"), str(folder / "gone.png")]) == 2
    assert "error" in lines(capsys.readouterr().out)[1]


def test_options_reach_the_model(model, folder):
    options = "--length short --temperature 0.5 --top-p 0.8 --max-tokens 9 --seed 3 --dtype bfloat16 --revision r1"
    assert main(["caption", str(folder / "b.png"), *options.split(), "--max-pixels", "100", "--model", "m"]) == 0
    settings = {"temperature": 0.5, "top_p": 0.8, "max_tokens": 9, "seed": 3}
    assert model.calls == [("b.png", "short", settings)]
    assert model.loaded == {"path_or_id": "m", "revision": "r1", "dtype": "bfloat16", "max_pixels": 100}


def test_query(model, folder, capsys):
    assert main(["query", str(folder / "b.png"), "--question", "Colour?", "--reasoning"]) == 0
    assert lines(capsys.readouterr().out)[0]["reasoning"]["text"] == "hm"
    assert main(["query", str(folder / "b.png"), "--question", "Colour?"]) == 0
    assert lines(capsys.readouterr().out) == [{"key": str(folder / "b.png"), "answer": "red"}]


def test_detect_and_point(model, folder, tmp_path, capsys):
    image, out = str(folder / "b.png"), str(tmp_path / "x.jsonl")
    assert main(["detect", image, "--object", "ball", "--max-objects", "3"]) == 0
    assert lines(capsys.readouterr().out)[0]["objects"][0]["x_max"] == 0.3
    assert model.calls[-1] == ("b.png", "ball", {"temperature": 0.0, "max_objects": 3})
    assert main(["point", image, "--object", "ball"]) == 0
    assert lines(capsys.readouterr().out)[0]["points"] == [{"x": 0.5, "y": 0.25}]
    main(["detect", image, "--object", "ball", "--out", out])
    assert "1 found: (0.10, 0.20) to (0.30, 0.40)" in capsys.readouterr().out
    main(["point", image, "--object", "ball", "--out", out])
    assert "1 found: (0.50, 0.25)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "--model", "missing"], "no such model"),
        (["{folder}/nowhere"], "does not exist"),
        (["{folder}/empty"], "no images found"),
        (["{folder}", "--out", "{folder}/nowhere/x.jsonl"], "no folder"),
        (["{folder}", "--out", "{folder}/empty"], "--out"),
    ],
)
def test_fatal_faults_are_one_message(model, folder, capsys, arguments, message):
    (folder / "empty").mkdir()
    assert main(["caption", *(argument.format(folder=folder) for argument in arguments)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert not captured.out


def test_a_question_that_cannot_be_asked_is_fatal(model, folder, capsys):
    assert main(["query", str(folder), "--question", "x" * 101]) == 1
    assert "too long" in capsys.readouterr().err


def test_interrupt_keeps_what_is_written(model, folder, tmp_path, capsys):
    (folder / "interrupt.png").write_bytes(b"")
    out = tmp_path / "x.jsonl"
    assert main(["caption", str(folder), "--out", str(out)]) == 130
    assert [line["key"] for line in lines(out.read_text(encoding="utf-8"))] == ["a.JPG", "b.png"]
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_reads_back(model, folder, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (folder / name).write_bytes(b"")
    out = tmp_path / "x.jsonl"
    assert main(["caption", str(folder / name), "--out", str(out)]) == 0
    assert lines(out.read_text(encoding="utf-8"))[0]["key"] == str(folder / name)
