"""The lines a command writes, their keys, and what happens when something is wrong."""

from __future__ import annotations

import json
import os
import sys

import pytest

from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.sources import local_images
from jaxphoton.cli.main import main
from jaxphoton.engine.memory import whole_pages

pytestmark = pytest.mark.smoke

GREEDY = {"temperature": 0.0}


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_folder_keys_are_relative_sorted_and_without_hidden_files(folder):
    assert list(local_images([str(folder)])) == ["a.JPG", "b.png", "sub/c.webp"]


def test_two_files_of_one_name_are_told_apart(folder, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.png").write_bytes(b"")
    found = local_images([str(folder), str(tmp_path / "more")])
    assert list(found) == ["photos/a.JPG", "photos/b.png", "photos/sub/c.webp", "more/b.png"]
    assert all(path.exists() for path in found.values())


def test_caption_to_stdout_is_in_the_order_of_the_images(model, folder, capsys):
    assert main(["caption", str(folder)]) == 0
    captured = capsys.readouterr()
    first = {
        "key": "a.JPG",
        "length": "normal",
        "caption": "Ein schöner Kreis: a",
        "tokens": 3,
        "finish_reason": "stop",
        "error": "",
        "reason": "",
        "warnings": "",
    }
    assert lines(captured.out)[0] == first
    assert "schöner" in captured.out  # not \\u00f6
    assert [line["key"] for line in lines(captured.out)] == ["a.JPG", "b.png", "sub/c.webp"]
    assert "greedy" in captured.err and "3 images" in captured.err
    assert ("a.JPG", "caption", {"length": "normal"}, GREEDY) in model.calls
    assert model.loaded["path_or_id"] == "shapes" and "max_pixels" not in model.loaded
    assert not list(folder.parent.glob("*journal*"))


def test_caption_to_a_file(model, folder, tmp_path, capsys):
    out = tmp_path / "x.jsonl"
    out.write_text("old\n" * 100, encoding="utf-8")
    assert main(["caption", str(folder), "--out", str(out)]) == 0
    assert {line["key"] for line in lines(out.read_text(encoding="utf-8"))} == {"a.JPG", "b.png", "sub/c.webp"}
    assert "a.JPG: Ein schöner Kreis: a" in capsys.readouterr().out.splitlines()


def test_a_bad_image_is_a_line_and_the_rest_goes_on(model, folder, tmp_path, capsys):
    (folder / "bad.png").write_bytes(b"junk")
    out, failures = tmp_path / "x.jsonl", tmp_path / "x.jsonl.failures.jsonl"
    assert main(["caption", str(folder), "--out", str(out)]) == 2
    written = {line["key"]: line for line in lines(out.read_text(encoding="utf-8"))}
    bad = written["bad.png"]
    assert (bad["error"], bad["reason"], bad["caption"]) == ("not an image", "not-an-image", "")
    assert len(written) == 4 and written["sub/c.webp"]["caption"]
    (failure,) = lines(failures.read_text(encoding="utf-8"))
    assert failure["key"] == "bad.png" and failure["path"] == str(folder / "bad.png")
    captured = capsys.readouterr()
    assert "1 of 4 images failed" in captured.err and str(failures) in captured.err
    assert "bad.png: ERROR" in captured.out


def test_a_bad_image_without_out(model, folder, capsys):
    (folder / "bad.png").write_bytes(b"junk")
    assert main(["caption", str(folder)]) == 2
    assert [line["key"] for line in lines(capsys.readouterr().out) if line["error"]] == ["bad.png"]


def test_options_reach_the_model(model, folder):
    options = "--length short --temperature 0.5 --top-p 0.8 --max-tokens 9 --seed 3 --dtype bfloat16 --revision r1"
    pictures = "--max-pixels 100 --alpha-background #0a0B0c --allow-truncated --fast-decode --resize exact"
    assert main(["caption", str(folder / "b.png"), *options.split(), *pictures.split(), "--model", "m"]) == 0
    settings = {"temperature": 0.5, "top_p": 0.8, "max_tokens": 9, "seed": 3}
    assert model.calls == [("b.png", "caption", {"length": "short"}, settings)]
    assert model.loaded == {
        "path_or_id": "m",
        "revision": "r1",
        "dtype": "bfloat16",
        "max_pixels": 100,
        "background": (10, 11, 12),
        "allow_truncated": True,
        "fast_decode": True,
        "resize": "exact",
    }


def test_the_engine_is_set_up(model, folder):
    image = str(folder / "b.png")
    assert main(["caption", image, "--rows", "4", "--workers", "3", "--image-timeout", "7.5"]) == 0
    engine = model.engine_config
    assert (engine.max_rows, engine.step_rows, engine.image_workers) == (4, (1, 4), 3) and not engine.fixed_shapes
    assert engine.image_timeout == 7.5
    assert main(["caption", image, "--deterministic"]) == 0
    assert model.engine_config.fixed_shapes
    assert model.engine_config.kv_pages == whole_pages(model.config.text.max_context, model.engine_config)


def test_query(model, folder, capsys):
    assert main(["query", str(folder / "b.png"), "--question", "Colour?", "--reasoning"]) == 0
    assert lines(capsys.readouterr().out)[0]["reasoning"]["text"] == "hm"
    assert main(["query", str(folder / "b.png"), "--question", "Colour?"]) == 0
    (line,) = lines(capsys.readouterr().out)
    assert (line["key"], line["question"], line["answer"]) == (str(folder / "b.png"), "Colour?", "red")


def test_detect_and_point(model, folder, tmp_path, capsys):
    image, out = str(folder / "b.png"), str(tmp_path / "x.jsonl")
    assert main(["detect", image, "--object", "ball", "--max-objects", "3"]) == 0
    assert lines(capsys.readouterr().out)[0]["objects"][0]["x_max"] == 0.3
    assert model.calls[-1] == ("b.png", "detect", {"object": "ball"}, GREEDY | {"max_objects": 3})
    assert main(["point", image, "--object", "ball"]) == 0
    assert lines(capsys.readouterr().out)[0]["points"] == [{"x": 0.5, "y": 0.25}]
    main(["detect", image, "--object", "ball", "--out", out])
    assert "1 found: (0.10, 0.20) to (0.30, 0.40)" in capsys.readouterr().out
    main(["point", image, "--object", "ball", "--out", out, "--restart"])
    assert "1 found: (0.50, 0.25)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "--model", "missing", "--out", "x.jsonl"], "no such model"),
        (["{folder}", "--model", "broken"], "no such tensor"),
        (["{folder}/nowhere"], "does not exist"),
        (["{folder}/b.png", "{folder}/nowhere.png"], "nowhere.png does not exist"),
        (["{folder}/empty"], "no image found"),
        (["{folder}/notes.md"], "cannot tell what this is"),
        (["{folder}", "--out", "{folder}/nowhere/x.jsonl"], "no folder"),
        (["{folder}", "--out", "x.docx"], "no form has the suffix .docx"),
        (["{folder}", "--out", "x.json"], "nothing is detected"),
        (["{folder}/list.txt", "--out", "{folder}/list.txt", "--form", "jsonl"], "is the input"),
        (["{folder}", "--tasks", "detect:car", "--out", "texts"], "--extension .json"),
        (["{folder}", "--report", "report.html"], "--report needs a journal"),
        (["{folder}", "--dedupe", "sha256"], "--dedupe needs a journal"),
        (["{folder}", "--dedupe", "sha256", "--prefix", "{{name}}", "--out", "x.jsonl"], "texts with variables"),
        (["{folder}", "--shard", "3/3"], "from 0 to 2"),
        (["{folder}", "--captions-per-image", "2"], "need a temperature"),
        (["{folder}", "--tasks", "caption,detect"], "needs a text"),
        (["{folder}", "--tasks", "count:cars"], "'count:cars' is none of caption"),
        (["{folder}", "--prompt-file", "{folder}/nowhere"], "--prompt-file"),
        (["{folder}", "--prompt", "x" * 131], "too long"),
    ],
)
def test_fatal_faults_are_one_message(model, folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (folder / "empty").mkdir()
    (folder / "list.txt").write_text("b.png\n")
    assert main(["caption", *(argument.format(folder=folder) for argument in arguments)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert not captured.out


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_is_escaped(model, folder, tmp_path):
    """As a text: readers of JSON lines refuse a whole file that holds half a surrogate."""
    name = os.fsdecode(b"caf\xe9.png")
    (folder / name).write_bytes(b"")
    out = tmp_path / "x.jsonl"
    assert main(["caption", str(folder / name), "--out", str(out)]) == 0
    assert lines(out.read_text(encoding="utf-8"))[0]["key"] == str(folder / "caf\\udce9.png")
    with JournalReader(f"{out}.journal") as reader:
        assert str(folder / name) in reader
