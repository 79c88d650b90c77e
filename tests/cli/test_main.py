"""The parser: help without jax, options with one spelling, exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

import pytest

from jaxphoton import __version__
from jaxphoton.cli.main import commands, main

pytestmark = pytest.mark.smoke

COMMANDS = tuple(commands())


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    code = exit_info.value.code
    assert isinstance(code, int)
    return code


def test_help_names_every_command_and_no_flag_of_absl(capsys):
    assert exit_code("--help") == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^ +{command}\s", text, re.MULTILINE) for command in COMMANDS)
    assert "helpfull" not in text and "verbosity" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert exit_code(command, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: jaxphoton {command}")
    assert "helpfull" not in text and "undefok" not in text


def test_help_loads_neither_jax_nor_pillow():
    code = (
        "import sys\nfrom jaxphoton.cli.main import main\n"
        "try:\n    main(['caption', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'jax', 'numpy', 'PIL', 'transformers', 'tqdm'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "jaxphoton", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"jaxphoton {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["caption"],
        ["caption", "a.png", "--len", "short"],  # no abbreviations
        ["caption", "a.png", "--max_tokens", "3"],  # one spelling
        ["caption", "a.png", "--length", "huge"],
        ["caption", "a.png", "--temperature", "-1"],
        ["caption", "a.png", "--temperature", "nan"],
        ["caption", "a.png", "--top-p", "0"],
        ["caption", "a.png", "--top-p", "1.5"],
        ["caption", "a.png", "--max-tokens", "x"],
        ["caption", "a.png", "--flagfile", "nowhere.cfg"],
        ["query", "a.png"],
        ["detect", "a.png"],
    ],
)
def test_bad_options_exit_with_1(arguments, capsys):
    assert exit_code(*arguments) == 1
    shown = capsys.readouterr().err
    command = f"jaxphoton {arguments[0]}" if arguments and arguments[0] in COMMANDS else "jaxphoton"
    usage, fault = shown.splitlines()
    assert usage == f"usage: see `{command} --help`" and fault.startswith(f"{command}: ")


@pytest.mark.parametrize(
    "command, option, meant",
    [
        ("caption", "--lenght", "--length"),
        ("caption", "--max_tokens=3", "--max-tokens"),
        ("caption", "--len", "--length"),
        ("detect", "--objekt", "--object"),
        ("export", "--failure", "--failures"),
    ],
)
def test_an_option_that_was_mistyped_is_told_with_the_one_that_was_meant(command, option, meant, capsys):
    wanted = ["--object", "cat"] if command == "detect" else []
    assert exit_code(command, "a.png", *wanted, option) == 1
    assert f"jaxphoton {command}: unrecognized arguments: {option}; did you mean {meant}?" in capsys.readouterr().err


def test_options_of_a_command_below_a_command_are_its_own(capsys):
    assert exit_code("bench", "pipeline", "--stream", "1", "--qqq") == 1
    assert "jaxphoton bench pipeline: unrecognized arguments: --stream 1 --qqq; did you mean --streams?" in (
        capsys.readouterr().err
    )


def test_flagfile(model, folder, tmp_path):
    flagfile = tmp_path / "options.cfg"
    flagfile.write_text("# short ones\n--length=short\n--max-tokens=5\n", encoding="utf-8")
    main(["caption", "--flagfile", str(flagfile), str(folder / "b.png"), "--max-tokens", "7"])
    assert model.calls == [("b.png", "caption", {"length": "short"}, {"temperature": 0.0, "max_tokens": 7})]


@pytest.mark.parametrize("compiles", [False, True])
def test_who_interrupts_does_not_wait_for_the_compiler(monkeypatch, capsys, compiles):
    from jaxphoton.cli import verify
    from jaxphoton.engine.compiling import COMPILING

    def interrupted(_):
        raise KeyboardInterrupt

    def left(code):
        raise SystemExit(f"at once with {code}")

    monkeypatch.setattr(verify, "run", interrupted)
    monkeypatch.setattr(os, "_exit", left)
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(60,), name=f"{COMPILING}_0")
    thread.start()
    try:
        if compiles:
            with pytest.raises(SystemExit, match="^at once with 130$"):
                main(["verify"])
        done.set()
        thread.join()
        assert compiles or main(["verify"]) == 130
        assert capsys.readouterr().err == "jaxphoton verify: interrupted\n"
    finally:
        done.set()
