"""`--replicas`: several engine processes behind a command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jaxphoton.cli.main import main
from tests.batch.helpers import json_lines

EXAMPLES = str(Path(__file__).parents[2] / "examples" / "shapes")


@pytest.mark.parametrize("value", ["0", "-1", "all"])
def test_other_values_are_refused(value, capsys):
    with pytest.raises(SystemExit) as end:
        main(["caption", EXAMPLES, "--replicas", value])
    assert end.value.code == 1 and "--replicas" in capsys.readouterr().err


def test_more_than_there_are_gpus(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert main(["caption", EXAMPLES, "--out", str(tmp_path / "x.jsonl"), "--replicas", "3"]) == 1
    assert "3 replicas need 3 GPUs, visible here: 0, 1" in capsys.readouterr().err


def test_a_trace_is_of_one_process(tmp_path, capsys):
    assert main(["caption", EXAMPLES, "--replicas", "2", "--trace", str(tmp_path / "t")]) == 1
    assert "--replicas 1" in capsys.readouterr().err


def test_auto_without_gpus_is_this_process(model, folder, tmp_path):
    assert main(["caption", str(folder), "--out", str(tmp_path / "x.jsonl"), "--replicas", "auto"]) == 0
    assert model.loaded and len(json_lines(tmp_path / "x.jsonl")) == 3


def test_two_processes_with_the_small_model(tmp_path, capsys):
    out = tmp_path / "x.jsonl"
    assert main(["caption", EXAMPLES, "--out", str(out), "--replicas", "2", "--limit", "4", "--quiet"]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4 and all(row["caption"].startswith("The image shows") for row in rows)
    shown = capsys.readouterr().err
    assert "decode" in shown
    # By the first process that is ready; nothing is compiled that no option can use.
    assert re.search(r"replica [01]: compiling 6 programs: step 1, step 8, prefill", shown)
