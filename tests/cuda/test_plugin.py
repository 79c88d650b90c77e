"""The plugin is fetched once; a failed fetch leaves nothing behind and says why. So does a compiler that crashes."""

from __future__ import annotations

import importlib.metadata

import pytest

from scripts.cuda import jobs, plugin


def test_without_an_index_the_error_names_the_wheels_and_a_later_call_tries_again(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "ROOT", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    version = importlib.metadata.version("jax")
    for _ in range(2):
        with pytest.raises(plugin.NoPlugin, match=f"jax-cuda12-plugin=={version}"):
            plugin.install()
    assert [path.name for path in (tmp_path / ".cuda").iterdir()] == ["lock"]


def test_a_folder_that_is_there_is_used_without_asking_anyone(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "ROOT", tmp_path)
    monkeypatch.setattr(plugin, "_fetch", lambda wheels, place: place.mkdir())
    place = plugin.install()
    monkeypatch.setattr(plugin, "_fetch", lambda wheels, place: pytest.fail("fetched again"))
    assert plugin.install() == place and place.is_dir()


def test_the_compiler_comes_with_the_plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "ROOT", tmp_path)
    fetched = []
    monkeypatch.setattr(plugin, "_fetch", lambda wheels, place: fetched.extend(wheels))
    plugin.install()
    assert any(wheel.startswith("nvidia-cuda-nvcc-cu12==") for wheel in fetched)


def test_a_compiling_process_that_dies_is_evidence_too_and_those_behind_it_are_compiled(tmp_path):
    names = ("nothing", "dying", "nothing", "nothing")
    wanted = [jobs.Job(chip, f"tests.cuda.bad:{name}") for chip, name in zip((*jobs.CHIPS, "h200"), names, strict=True)]
    done = jobs.run_together(wanted, tmp_path)
    assert [job for job, _ in done] == wanted
    assert [len(evidence) for _, evidence in done] == [0, 1, 0, 0]
    ((found,),) = [evidence for _, evidence in done if evidence]
    assert "Killed" in found.error and "dying" in found.program
