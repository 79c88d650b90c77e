"""Whatever is wrong with the files of a model, every command says it in one sentence and exits with 1."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from jaxphoton.cli.main import main

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "jaxphoton" / "assets" / "shapes"
PICTURE = ROOT / "examples" / "shapes" / "scene_01.png"


def _setting(*path: str, value: object):
    def damage(folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text())
        at = data
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value
        (folder / "config.json").write_text(json.dumps(data))

    return damage


def _content(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def _pipe(name: str):
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return damage


# What is wrong -> how it comes about, and what the message says.
SETTINGS = {
    "layers": (
        _setting("config", "vision", "enc_n_layers", value=10**11),
        "vision.enc_n_layers must be an integer from",
    ),
    "kind": (_setting("config", "text", "dim", value=None), "text.dim must be an integer from 1 to 65536, not None"),
    "family": (_setting("model_type", value="qwen2_vl"), "not a model of ours: qwen2_vl; known are"),
    "prompt": (
        _setting("config", "tokenizer", "templates", "caption", "normal", value=[1, 437]),
        "holds 437, which is no token id: text.vocab_size is 437",
    ),
    "nested": (_content("config.json", b"[" * 10**5), "nested too deeply"),
    "empty": (_content("config.json", b""), "an empty file"),
    "pipe": (_pipe("config.json"), "config.json: a named pipe, not a regular file"),
}
FILES = {
    "tokenizer": (_content("tokenizer.json", b'{"model": 3}'), "tokenizer.json: not a tokenizer"),
    "tokenizer pipe": (_pipe("tokenizer.json"), "tokenizer.json: .*a named pipe"),
    "index pipe": (_pipe("model.safetensors.index.json"), "index.json: a named pipe"),
    "weights": (_content("model.safetensors", b"\xff" * 100), "model.safetensors: header of"),
    "weights pipe": (_pipe("model.safetensors"), "model.safetensors: a named pipe"),
}


@pytest.fixture
def shapes(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(SHAPES / name, folder)
    return folder


def _refused(capsys, message: str, *arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith(f"jaxphoton {arguments[0]}: ") and len(told[-1]) < 2000
    assert not any("Traceback" in line for line in told)
    assert re.search(message, told[-1])


@pytest.mark.parametrize("fault", SETTINGS | FILES)
def test_caption_and_convert(shapes, tmp_path, capsys, fault):
    damage, message = (SETTINGS | FILES)[fault]
    damage(shapes)
    _refused(capsys, message, "caption", PICTURE, "--model", shapes)
    _refused(capsys, message, "convert", shapes, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize("fault", SETTINGS)
def test_plan_and_dry_run(shapes, tmp_path, capsys, fault):
    damage, message = SETTINGS[fault]
    damage(shapes)
    _refused(capsys, message, "plan", "--model", shapes)
    _refused(capsys, message, "caption", PICTURE, "--model", shapes, "--dry-run", "--out", tmp_path / "a.jsonl")


@pytest.mark.parametrize("fault", ["layers", "family", "weights", "index pipe"])
def test_a_run_that_cannot_load_its_model_leaves_nothing(shapes, tmp_path, capsys, fault):
    damage, message = (SETTINGS | FILES)[fault]
    damage(shapes)
    out = tmp_path / "out"
    out.mkdir()
    _refused(capsys, message, "caption", PICTURE, "--model", shapes, "--out", out / "a.jsonl")
    assert not list(out.iterdir()), "no journal that refuses the model once it is repaired"


@pytest.mark.parametrize("name", ["~nobody-here/x", "x" * 300, "x" * 5000, "a\0b", "./absent", "\x1b[31mred"])
def test_names_that_no_model_can_have(tmp_path, capsys, name):
    missing = "no such file or folder|no model|no golden directory|config.json"
    _refused(capsys, missing, "caption", PICTURE, "--model", name)
    _refused(capsys, missing, "plan", "--model", name)
    _refused(capsys, missing, "convert", name, tmp_path / "converted")
    if len(name) < 1000:
        _refused(capsys, missing, "verify", name)
    if name != "./absent":
        _refused(capsys, "too long|not a path|No such file|cannot be", "convert", SHAPES, f"/proc/{name}")


@pytest.mark.parametrize("fault", ["family", "kind", "weights", "weights pipe"])
def test_verify_of_models(shapes, tmp_path, capsys, fault):
    damage, message = (SETTINGS | FILES)[fault]
    damage(shapes)
    folder = shutil.copytree(SHAPES / "golden", tmp_path / "golden")
    for file in shapes.iterdir():
        file.rename(folder / "shapes" / file.name)
    _refused(capsys, message, "verify", folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "must be an object with an object of cases, not"),
        (b'{"cases": 3}', "must be an object with an object of cases, not"),
        (b'{"cases": {"prefill": 3}}', "the case 'prefill' must be an object, not 3"),
        (b"[" * 10**5, "nested too deeply"),
        (b"\xff\xfe", "not UTF-8"),
        (b"", "an empty file"),
    ],
)
def test_verify_of_recorded_cases(tmp_path, capsys, content, message):
    folder = shutil.copytree(SHAPES / "golden", tmp_path / "golden")
    (folder / "shapes" / "cases.json").write_bytes(content)
    _refused(capsys, f"cases.json: .*{message}", "verify", folder)
