"""The plugin is fetched once; a failed fetch leaves nothing behind and says why."""

from __future__ import annotations

import importlib.metadata

import pytest

from scripts.cuda import plugin


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
