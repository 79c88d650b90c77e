"""The comparison on a CPU: another side is called as it is told, and what it lacks is said."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import cpu_reference
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.weights.load import load_model
from scripts.models import family_named

STAND_IN = """
def load(folder, images, tokens):
    loaded = [folder]
    return lambda: [[len(loaded), len(image)][:tokens] for image in images if image != "lost.jpg"]
"""


@pytest.fixture
def side(tmp_path, monkeypatch):
    (tmp_path / "stand_in_side.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield lambda images: SimpleNamespace(side="stand_in_side:load", model="m", images=images, tokens=2)
    sys.modules.pop("stand_in_side", None)


def test_a_side_returns_the_ids_of_every_image(side):
    assert cpu_reference._measured(side(["a", "abc"]))["ids"] == [[1, 1], [1, 3]]
    with pytest.raises(SystemExit, match="stand_in_side:load returned 1 captions of 2 images"):
        cpu_reference._measured(side(["a", "lost.jpg"]))


def test_a_report_has_seconds_an_image_ratios_to_the_last_side_and_equal_ids(capsys):
    ours, other = {"seconds": 2.0, "ids": [[1], [2]]}, {"seconds": 6.0, "ids": [[1], [3]]}
    cpu_reference._report([("ours", ours), ("other", other)], 2)
    _, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert first == ["ours", "1.00", "3.00", "2", "of", "2"]
    assert second == ["other", "3.00", "1.00", "1", "of", "2"]


def test_a_side_runs_in_a_process_that_imports_from_its_place(tmp_path, monkeypatch):
    (tmp_path / "stand_in_side.py").write_text(STAND_IN)
    monkeypatch.setattr(sys, "argv", ["cpu_reference.py", "a", "abc", "--model", "m", "--tokens", "1"])
    found = cpu_reference._child(sys.executable, tmp_path, "stand_in_side:load", "folder")
    assert found["ids"] == [[1], [1]] and found["seconds"] >= 0


def test_a_model_by_name_is_a_checkpoint_of_random_weights_that_loads(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(cpu_reference.__file__).parent))
    cold_start = importlib.import_module("cold_start")
    config = family_named("small").config
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=51200))
    monkeypatch.setattr(cold_start, "named_family", {"small": MoondreamFamily(config)}.__getitem__)
    with cpu_reference._checkpoint("small") as folder:
        family, params = load_model(folder)
    assert family.config == config and not Path(folder).exists()
    assert 0.015 < np.std(np.asarray(params.text.wte, np.float32)) < 0.025
    with cpu_reference._checkpoint(str(tmp_path)) as folder:
        assert folder == str(tmp_path)


def test_a_model_that_is_neither_there_nor_known_is_one_clear_error(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(cpu_reference.__file__).parent))
    with pytest.raises(SystemExit, match="--model nothing: no such folder, and .*moondream-0.5b"):
        with cpu_reference._checkpoint("nothing"):
            pass
