"""`--mesh`: one model over several devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxphoton.cli.main import build_parser, main
from jaxphoton.cli.serve import _backend

EXAMPLES = Path(__file__).parents[2] / "examples" / "shapes"


@pytest.mark.parametrize("command", [["caption", "x.png"], ["run-batch", "a", "b"], ["serve"], ["bench", "throughput"]])
def test_what_is_no_mesh_is_refused(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--mesh", "gpus=2"])
    assert end.value.code == 1 and 'a mesh is written like "model=2,expert=2"' in capsys.readouterr().err


def test_no_programs_are_stored_for_one(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["compile", "--out", str(tmp_path / "x"), "--mesh", "model=2"])
    assert end.value.code == 1 and "programs of a mesh are not stored" in capsys.readouterr().err


def test_a_run_is_loaded_with_it_and_may_go_on_without(model, folder, tmp_path):
    out = str(tmp_path / "x.jsonl")
    assert main(["caption", str(folder), "--out", out, "--mesh", "model=2,expert=2"]) == 0
    assert model.loaded["mesh"] == "model=2,expert=2"
    assert main(["caption", str(folder), "--out", out]) == 0  # no settings differ


def test_data_and_replicas_that_differ_are_refused(capsys):
    assert main(["caption", str(EXAMPLES), "--mesh", "data=2,model=2", "--replicas", "3"]) == 1
    assert "--mesh has data=2, which are replicas: --replicas must be as many" in capsys.readouterr().err


def test_processes_have_the_devices_of_one_each(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    for given in (["--mesh", "data=2,model=2"], ["--mesh", "model=2", "--replicas", "auto"]):
        backend: Any = _backend(build_parser()[0].parse_args(["serve", *given]))
        (gpus, options, _), _ = backend._arguments
        assert gpus == ("0,1", "2,3") and options == {"path_or_id": "shapes", "mesh": "model=2"}
    assert main(["serve", "--port", "0", "--mesh", "model=3", "--replicas", "auto"]) == 1


def test_a_mesh_that_the_machine_or_the_model_has_no_devices_for(tmp_path):
    for devices, mesh, fault in (
        (2, "model=4", "needs 4 devices, and there are 2"),
        (3, "model=3", "cannot share 4 heads evenly; 1, 2 would"),
    ):
        done = _run(devices, "caption", str(EXAMPLES), "--out", str(tmp_path / "x.jsonl"), "--mesh", mesh)
        assert done.returncode == 1 and fault in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_devices_say_what_one_says(shapes, tmp_path):
    out = tmp_path / "x.jsonl"
    given = ("--out", str(out), "--limit", "2", "--mesh", "model=2", "--rows", "1", "--quiet")
    done = _run(2, "caption", str(EXAMPLES), *given)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    wanted = shapes.caption([EXAMPLES / row["key"] for row in rows], settings={"temperature": 0})
    assert [row["caption"] for row in rows] == [each["caption"] for each in wanted] and len(rows) == 2


def _run(devices: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command on so many fake devices."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "jaxphoton", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)
