"""`jaxphoton run-batch`, with a stand-in for the model; and killed, with a real one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec", reason="needs the extra `serve`")

from jaxphoton.cli.main import main
from tests.batch.helpers import json_lines
from tests.batch.requests.fake import PICTURE, request, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asks(folder):
    """Beside pictures: a path, a data address, a question without a picture, a picture that is none."""
    return write(
        folder / "in.jsonl",
        [
            request("path", image_url="sub/c.webp"),
            request("data", "/v1/detect", image_url=PICTURE, object="cat"),
            request("text", "/v1/query", question="?", settings={"temperature": 0}),
            request("bad", image_url="bad.png"),
        ],
    )


@pytest.mark.smoke
def test_a_file_is_answered_and_the_same_command_goes_on(model, asks, tmp_path, capsys):
    command = ["run-batch", str(asks), str(tmp_path / "out.jsonl")]
    assert main(command) == 2
    lines = json_lines(tmp_path / "out.jsonl")
    assert [line["custom_id"] for line in lines] == ["path", "data", "text", "bad"]
    assert [line["response"]["status_code"] for line in lines] == [200, 200, 200, 400]
    assert [call[:2] for call in model.calls] == [("c.webp", "caption"), ("data", "detect"), ("text", "query")]
    said = capsys.readouterr()
    assert said.out == "" and "4 requests, model shapes" in said.err and "1 of 4 requests failed" in said.err
    assert main(command) == 2 and "nothing is left to do" in capsys.readouterr().err
    assert len(model.calls) == 3


@pytest.mark.smoke
def test_errors_and_options_have_their_places(model, asks, tmp_path, capsys):
    out, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    command = ["run-batch", str(asks), str(out), "--errors", str(errors), "--dtype", "bfloat16", "--max-pixels", "99"]
    assert main(command) == 2
    assert [line["custom_id"] for line in json_lines(errors)] == ["bad"] and len(json_lines(out)) == 3
    assert (model.loaded["dtype"], model.loaded["max_pixels"]) == ("bfloat16", 99)
    assert main(["run-batch", str(asks), str(out), "--dtype", "float32"]) == 1
    assert "--allow-changes" in capsys.readouterr().err


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl", "out.jsonl"], "missing.jsonl: no such file"),
        (["in.jsonl", "in.jsonl"], "in.jsonl is the input"),
        (["in.jsonl", "-"], "standard output"),
        (["in.jsonl", "no/out.jsonl"], "no folder"),
        (["in.jsonl", "out.jsonl", "--errors", "out.jsonl"], "two things at once"),
        (["in.jsonl", "out.jsonl", "--limit", "3"], "unrecognized arguments: --limit"),
    ],
)
def test_what_cannot_be_run_is_said(model, asks, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(asks.parent)
    try:
        code = main(["run-batch", *arguments])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err
    assert code == 1 and message in said and "Traceback" not in said and model.calls == []


def test_a_killed_run_goes_on_and_has_every_line_once(tmp_path):
    scene = ROOT / "examples" / "shapes" / "scene_01.png"
    settings = {"temperature": 0, "max_tokens": 30}
    lines: list[Any] = [
        request(f"{n}", image_url=str(scene), length="short" if n % 2 else "long", settings=settings)
        if n % 3
        else request(f"{n}", "/v1/query", question=f"What is {n}?", settings=settings)
        for n in range(60)
    ]
    lines[7], lines[20] = "{", request("3")
    asks, out = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "jaxphoton", "run-batch", str(asks), str(out), "--deterministic"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    journal, randomness = Path(f"{out}.journal"), random.Random(1)
    for _ in range(2):
        before = _lines_of(journal)
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while process.poll() is None and _lines_of(journal) < before + 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(randomness.random() / 20)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    answers = json_lines(out)
    wanted: list[str | None] = [f"{n}" for n in range(60)]
    wanted[7], wanted[20] = None, "3"
    assert [line["custom_id"] for line in answers] == wanted
    assert [place for place, line in enumerate(answers) if line["error"]] == [7, 20]
    assert _lines_of(journal) == 61  # the header, and nothing twice
    whole = tmp_path / "whole.jsonl"
    command[5] = str(whole)
    assert subprocess.run(command, env=environment, capture_output=True, timeout=300).returncode == 2
    assert [_text(line) for line in answers] == [_text(line) for line in json_lines(whole)]


def _text(line: dict) -> str | None:
    body = line["response"]["body"]
    return body.get("caption", body.get("answer"))


def _lines_of(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0
