"""What is asked, from the command line: braces, files of texts, empty texts."""

from __future__ import annotations

import json
import os

import pytest

from jaxphoton.cli.main import main
from tests.batch.helpers import make_folder, make_tar, picture

pytestmark = pytest.mark.smoke


def questions(model) -> list[str]:
    return [next(iter(arguments.values())) for _, _, arguments, _ in model.calls]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("query", "--question"),
        ("detect", "--object"),
        ("point", "--object"),
        ("caption", "--prompt"),
        ("caption", "--tasks"),
    ],
)
def test_braces_can_be_asked_about(model, folder, capsys, command, option):
    text = r"Is \frac{a}{b} of {{name}} in {name}?"
    given = f"query:{text}" if option == "--tasks" else text
    assert main([command, str(folder / "b.png"), option, given]) == 0
    assert questions(model) == [r"Is \frac{a}{b} of {name} in b?"]
    assert "left as they are: {a}, {b}" in capsys.readouterr().err


def test_braces_around_captions(model, folder, capsys):
    assert main(["caption", str(folder / "b.png"), "--prefix", "{{name}} {a}: ", "--suffix", " {name}}"]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["caption"] == "{name} {a}: Ein schöner Kreis: b b}"


def test_names_that_no_image_has_as_columns_leave_all_images_alike(model, folder, tmp_path):
    out = ["--out", str(tmp_path / "x.jsonl"), "--dedupe", "sha256"]
    assert main(["query", str(folder), "--question", "Is {a} or {{name}} there?", *out]) == 0
    assert set(questions(model)) == {"Is {a} or {name} there?"}


def test_an_unknown_column_is_named_before_the_work(model, folder, capsys):
    (folder / "list.jsonl").write_text(json.dumps({"image": "b.png", "thing": "hat"}) + "\n")
    assert main(["query", str(folder / "list.jsonl"), "--question", "A {thng}?"]) == 1
    errors = capsys.readouterr().err
    assert "{thng} is no variable here" in errors and "thing" in errors and "{{thng}}" in errors
    assert not model.loaded


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfHow many?\r\nSay it.\r\n",
        b"How many?\nSay it.\n\n",
        b"  How many?\rSay it.",
    ],
)
def test_a_prompt_from_a_file(model, folder, tmp_path, data):
    (tmp_path / "prompt.txt").write_bytes(data)
    assert main(["caption", str(folder / "b.png"), "--prompt-file", str(tmp_path / "prompt.txt")]) == 0
    assert questions(model) == ["How many?\nSay it."]


TEXT = "How many?"
FILES = {
    "utf16.txt": (TEXT.encode("utf-16"), "not UTF-8 text"),
    "utf16le.txt": (TEXT.encode("utf-16-le"), "not UTF-8 text"),
    "utf32.txt": (TEXT.encode("utf-32"), "not UTF-8 text"),
    "latin1.txt": ("Où?".encode("latin-1"), "not UTF-8 text"),
    "picture.png": (b"\x89PNG\r\n\x1a\n\0\0\0", "not UTF-8 text"),
    "empty.txt": (b"", "must not be empty"),
    "mark.txt": (b"\xef\xbb\xbf", "must not be empty"),
    "blank.txt": (" \n\t\u200b\u3000\r\n".encode(), "must not be empty"),
    "huge.txt": (b"a" * (1 << 20) + b"b", "larger than 1 MiB"),
}


@pytest.mark.parametrize("option", ["--prompt-file", "--flagfile"])
@pytest.mark.parametrize("name", [*FILES, "folder", "pipe", "gone.txt", "/dev/zero", "gone/x.txt", "x" * 300])
def test_a_file_that_is_no_text_is_named_with_its_fault(model, folder, tmp_path, monkeypatch, capsys, option, name):
    monkeypatch.chdir(tmp_path)
    for file, (data, _) in FILES.items():
        (tmp_path / file).write_bytes(data)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    faults = {"folder": "regular file", "pipe": "regular file", "/dev/zero": "regular file", "x" * 300: "too long"}
    fault = FILES[name][1] if name in FILES else faults.get(name, "No such file")
    if option == "--flagfile" and fault == "must not be empty":
        fault = ""  # a file without options is no fault
    code = exit_code(["caption", str(folder / "b.png"), option, name])
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    if fault:
        assert (
            code == 1
            and f"{option} {name}: " in errors
            and fault in errors.replace("File name", "")
            and not model.calls
        )


def exit_code(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


def test_a_file_of_options(model, folder, tmp_path):
    (tmp_path / "more.txt").write_text("--seed=3\n")
    inner = f"--flagfile={tmp_path / 'more.txt'}"
    (tmp_path / "flags.txt").write_bytes(f"\ufeff# mine\r\n--length=short\r\n\r\n// x\r\n{inner}".encode())
    assert main(["caption", str(folder / "b.png"), "--flagfile", str(tmp_path / "flags.txt")]) == 0
    ((_, _, arguments, settings),) = model.calls
    assert (arguments, settings["seed"]) == ({"length": "short"}, 3)


def test_a_file_of_options_that_names_itself(model, folder, tmp_path, capsys):
    (tmp_path / "flags.txt").write_text(f"--flagfile={tmp_path / 'flags.txt'}\n")
    assert exit_code(["caption", str(folder / "b.png"), "--flagfile", str(tmp_path / "flags.txt")]) == 1
    assert "it names itself" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "  ", "\n", "\u200b", "\u3000"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("query", "--question"),
        ("detect", "--object"),
        ("point", "--object"),
        ("segment", "--object"),
        ("caption", "--prompt"),
        ("caption", "--tasks"),
    ],
)
def test_an_empty_text_is_refused(model, folder, capsys, command, option, text):
    assert exit_code([command, str(folder / "b.png"), option, text]) == 1
    assert f"{option}: must not be empty" in capsys.readouterr().err and not model.calls


@pytest.mark.parametrize("option", ["--prompt", "--prefix", "--suffix", "--tasks"])
def test_bytes_that_are_no_text_are_refused(model, folder, capsys, option):
    assert exit_code(["caption", str(folder / "b.png"), option, "a \udce9"]) == 1
    assert f"{option}: not UTF-8 text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tasks", "fault"),
    [
        ("caption:tiny", "no caption types: it takes length, and not type='tiny'"),
        ("caption,", "task"),
        ("detect:", "task"),
        ("query: ", "task"),
        ("caption:short,", "task 'caption:short,'"),
    ],
)
def test_lists_of_tasks_that_mean_nothing(model, folder, capsys, tasks, fault):
    assert exit_code(["caption", str(folder / "b.png"), "--tasks", tasks]) == 1
    assert fault in capsys.readouterr().err and not model.calls


def test_a_prompt_named_like_a_length_is_a_prompt(model, folder, tmp_path, capsys):
    out = ["--out", str(tmp_path / "x.jsonl")]
    assert main(["caption", str(folder / "b.png"), "--prompt", "short", *out]) == 0
    assert questions(model) == ["short"]
    assert main(["caption", str(folder / "b.png"), "--length", "short", *out]) == 1
    assert "was made with other settings" in capsys.readouterr().err


ODD = ("image-caption", "my text", "prompt.en", "5", "größe")


def test_columns_whose_names_are_no_words(model, tmp_path):
    """They are variables where they are there, and text where they are not."""
    row = {name: f"<{name}>" for name in ODD}
    make_folder(tmp_path, ["a.png"])
    (tmp_path / "x.jsonl").write_text(json.dumps({"image": "a.png"} | row) + "\n")
    make_tar(tmp_path / "x.tar", {"1.png": picture(), "1.json": json.dumps(row).encode(), "1.seg.txt": b"<seg>"})
    text = "".join(f"{{{name}}}" for name in (*ODD, "seg.txt", "nothing-else")) + r"\frac{1}{2}{{5}}"
    for spec in ("x.jsonl", "x.tar", "a.png"):
        assert main(["query", str(tmp_path / spec), "--question", text]) == 0
    asked = [arguments["question"] for _, _, arguments, _ in model.calls]
    filled = "".join(row.values())
    rest = r"{nothing-else}\frac{1}{2}{5}"
    assert asked == [filled + "{seg.txt}" + rest, filled + "<seg>" + rest, text.replace("{{5}}", "{5}")]
