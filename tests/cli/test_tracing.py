"""Options with which a command records its run."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager

import pytest

from jaxphoton.cli.main import main
from jaxphoton.config import EngineConfig

pytestmark = pytest.mark.smoke

COMMANDS = {
    "caption": [],
    "query": ["--question", "What?"],
    "detect": ["--object", "car"],
    "point": ["--object", "car"],
}


@pytest.fixture
def seen(model, monkeypatch) -> list:
    """What was asked of the recorders, beside a model that has an engine's settings."""
    calls: list = []
    model.engine_config = EngineConfig()

    def recorder(name):
        @contextmanager
        def record(of, path, **about):
            calls.append((name, of is model, path.name, about))
            yield
            calls.append((name, "written"))

        return record

    monkeypatch.setattr("jaxphoton.measure.timeline.recording", recorder("trace"))
    monkeypatch.setattr("jaxphoton.measure.profile.profiling", recorder("profile"))
    monkeypatch.setattr("jaxphoton.measure.profile.keep_graphs", lambda: calls.append(("graphs", model.loaded == {})))
    return calls


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_records_if_asked(command, seen, folder, tmp_path):
    arguments = [command, str(folder / "b.png"), *COMMANDS[command], "--model", "m"]
    assert main(arguments) == 0 and seen == []
    assert main([*arguments, "--trace", str(tmp_path / "t.json")]) == 0
    assert seen == [("trace", True, "t.json", {"model": "m"}), ("trace", "written")]


def test_the_flag_for_profiles_is_set_before_the_model_is_loaded(seen, folder, tmp_path):
    assert main(["caption", str(folder / "b.png"), "--jax-profile", str(tmp_path / "p")]) == 0
    assert seen == [("graphs", True), ("profile", True, "p", {}), ("profile", "written")]


def test_a_trace_without_a_folder_is_refused_before_the_model_is_loaded(seen, model, folder, tmp_path, capsys):
    assert main(["caption", str(folder / "b.png"), "--trace", str(tmp_path / "no" / "t.json")]) == 1
    assert "t.json: no folder" in capsys.readouterr().err and model.loaded == {}


@pytest.mark.parametrize("depth", [1, 2])
def test_the_depth_reaches_the_engine(seen, model, folder, depth):
    assert main(["caption", str(folder / "b.png"), "--depth", str(depth)]) == 0
    assert model.engine_config == dataclasses.replace(EngineConfig(), depth=depth, host_masks=False)
