"""The README's Python examples run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_first_examples_run(in_root, capsys):
    scope: dict = {}
    exec(compile(EXAMPLES[0], "README.md", "exec"), scope)
    assert len(capsys.readouterr().out.splitlines()) == 5
    exec(compile(EXAMPLES[1], "README.md", "exec"), scope)
    scope["model"].close()
    assert capsys.readouterr().out.split()[:2] == ["3", "stop"]


def test_the_asyncio_example_runs(in_root, capsys):
    exec(compile(EXAMPLES[2], "README.md", "exec"), {})
    counts, text = capsys.readouterr().out.split("\n", 1)
    assert counts == "2 2" and text.startswith("The image shows three objects")


def test_the_pure_functions_agree_with_the_engine(in_root, capsys):
    scope: dict = {}
    exec(compile(EXAMPLES[-1], "README.md", "exec"), scope)
    answer = scope["model"].caption("examples/shapes/scene_05.png", settings={"temperature": 0, "max_tokens": 2})
    assert answer.tokens == (int(scope["first"][0]), int(scope["second"][0]))
    scope["model"].close()
    gradient = scope["gradient"]
    assert np.isfinite(scope["value"]) and scope["value"] < 0
    # The vision tower, the text decoder and the head all have a say in a caption.
    parts = (gradient.vision.patch_w, gradient.text.layers[0].qkv_w, gradient.text.lm_head_w)
    assert all(np.abs(part).max() > 0 for part in parts)
    assert "log p" in capsys.readouterr().out


def test_every_test_that_the_documents_name_is_there():
    files = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    everything, checked = "\n".join(files.values()), 0
    rows = (ROOT / "docs" / "photon-behaviours.md").read_text(encoding="utf-8").splitlines()
    for name in (name for row in rows if row.count("|") == 3 for name in re.findall("`([^`]+)`", row.split("|")[2])):
        if re.fullmatch(r"(tests/)?test_\w+(\.py)?", name):
            assert Path(name).stem in files, name
        elif re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", name):
            assert f"def test_{name}(" in everything, name
            checked += 1
    assert checked > 80
