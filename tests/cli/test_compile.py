"""`jaxphoton compile` and `--executables`, without compiling anything."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from jaxphoton import platform
from jaxphoton.cli.main import main
from jaxphoton.engine import compiled, gpus
from jaxphoton.engine.buckets import make_buckets
from jaxphoton.engine.memory import whole_pages

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "shapes" / "scene_01.png")


class FakePrograms:
    """Keeps what it was made of."""

    made: FakePrograms

    def __init__(self, params, family, engine, *, place):
        self.params, self.family, self.engine, self.place = params, family, engine, place
        self.buckets = make_buckets(engine, family)
        FakePrograms.made = self

    def store(self, folder):
        return 1 << 20


def _environment(monkeypatch) -> None:
    """What the command sets is taken back after the test."""
    for name, value in (("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1"), ("TF_CPP_MIN_LOG_LEVEL", "3")):
        monkeypatch.setenv(name, value)


@pytest.fixture
def fake(monkeypatch):
    _environment(monkeypatch)
    monkeypatch.setattr(compiled, "Programs", FakePrograms)


def test_this_processor_gets_the_programs_of_its_engine_and_half_the_pages(fake, tmp_path, capsys):
    assert main(["compile", "--out", str(tmp_path / "out"), "--gpu", "cpu"]) == 0
    made = FakePrograms.made
    assert made.place.target.platform == "cpu" and str(made.family.network.dtype(made.params)) == "float32"
    kv_pages = made.engine.kv_pages
    assert dataclasses.replace(made.engine, kv_pages=None) == platform.cpu_engine(made.family.max_crops)
    assert kv_pages == whole_pages(made.family.max_context, made.engine) // 2
    assert "8 programs, 1.00 MiB" in capsys.readouterr().err


def test_a_gpu_that_is_not_here_is_compiled_for_in_bfloat16(fake, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpus, "require_plugin", lambda: None)
    monkeypatch.setattr(gpus, "has_module", lambda name: False)
    command = ["compile", "--out", str(tmp_path / "out"), "--gpu", "h200", "--rows", "16", "--kv-dtype", "float8"]
    assert main([*command, "--adapter-slots", "3", "--adapter-rank", "64"]) == 0
    made = FakePrograms.made
    assert (made.engine.adapter_slots, made.engine.adapter_rank) == (3, 64)
    assert made.place.target == gpus.CHIPS["h200"].target and made.place.target.capability == 90
    assert made.place.kind == "NVIDIA H200"
    assert str(made.family.network.dtype(made.params)) == "bfloat16"
    assert (made.engine.max_rows, made.engine.kv_dtype, made.engine.kv_pages) == (16, "float8", None)
    # Without cuDNN's wheel its attention does not compile, and that is said.
    assert made.place.encoder.backend == "reference" and "without cuDNN" in capsys.readouterr().err
    limit, used = made.place.memory()
    assert used == 0 and 100e9 < limit < 141e9


def test_deterministic_programs_are_one_of_each_kind(fake, tmp_path):
    assert main(["compile", "--out", str(tmp_path / "out"), "--gpu", "cpu", "--deterministic"]) == 0
    engine = FakePrograms.made.engine
    assert engine.fixed_shapes and engine.kv_pages == whole_pages(FakePrograms.made.family.max_context, engine)


def test_without_the_plugin_the_error_says_what_to_install(monkeypatch, tmp_path, capsys):
    _environment(monkeypatch)
    monkeypatch.setattr(gpus, "plugin", lambda: None)
    assert main(["compile", "--out", str(tmp_path / "out"), "--gpu", "a100"]) == 1
    shown = capsys.readouterr().err
    assert "pip install jax-cuda12-plugin==" in shown and "nvidia-cuda-nvcc-cu12" in shown
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "kept").write_text("kept")
    assert main(["compile", "--out", str(tmp_path)]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_executables_that_are_not_there_end_a_run_before_anything_is_loaded(tmp_path, capsys):
    command = ["caption", EXAMPLE, "--out", str(tmp_path / "a.jsonl"), "--executables", str(tmp_path / "none")]
    assert main(command) == 1
    shown = capsys.readouterr().err
    assert "executables: " in shown and "manifest.json: no such file" in shown


def test_executables_of_another_machine_end_a_run_with_the_reason(tmp_path, capsys):
    facts = {"jax": "0.1.2", "platform": "cuda", "capability": 90, "driver": "525.60.13"}
    manifest = {"form": 1, "facts": facts, "engine": {}, "pages": 10, "programs": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert main(["caption", EXAMPLE, "--executables", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "jax 0.1.2, here 0." in shown and "platform cuda, here cpu" in shown
