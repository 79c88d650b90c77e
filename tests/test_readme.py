"""The Python examples of the README and of docs/jax-users.md run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxphoton.oracle.oracle import Oracle
from jaxphoton.requests.tokens import Token

ROOT = Path(__file__).parents[1]


def examples(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)


EXAMPLES = examples("README.md")


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_folder_in_a_call(tmp_path, monkeypatch, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[0], "README.md", "exec"), {})
    assert capsys.readouterr().out == "2 0 captions.jsonl\n" and (tmp_path / "captions.jsonl").exists()


def test_the_first_examples_run(in_root, capsys):
    scope: dict = {}
    exec(compile(EXAMPLES[1], "README.md", "exec"), scope)
    assert len(capsys.readouterr().out.splitlines()) == 5
    exec(compile(EXAMPLES[2], "README.md", "exec"), scope)
    assert capsys.readouterr().out.split()[:2] == ["3", "stop"]
    exec(compile(EXAMPLES[3], "README.md", "exec"), scope)
    scope["model"].close()
    assert scope["reply"]["content"] and capsys.readouterr().out


def test_the_asyncio_example_runs(in_root, capsys):
    exec(compile(EXAMPLES[4], "README.md", "exec"), {})
    counts, text = capsys.readouterr().out.split("\n", 1)
    assert counts == "2 2" and text.startswith("The image shows three objects")


def test_the_pure_functions_agree_with_the_engine(in_root, capsys):
    """The first listing of docs/jax-users.md, and the second, whose adapter teaches the model a question."""
    scope: dict = {}
    pure, training, *_ = examples("docs/jax-users.md")
    exec(compile(pure, "jax-users.md", "exec"), scope)
    answer = scope["model"].caption("examples/shapes/scene_05.png", settings={"temperature": 0, "max_tokens": 2})
    assert answer.tokens == (int(scope["first"][0]), int(scope["second"][0]))
    gradient = scope["gradient"]
    assert np.isfinite(scope["value"]) and scope["value"] < 0
    # The vision tower, the text decoder and the head all have a say in a caption.
    parts = (gradient.vision.patch_w, gradient.text.layers[0].in_w, gradient.text.lm_head_w)
    assert all(np.abs(part.matrix).max() > 0 for part in parts)
    assert "log p" in capsys.readouterr().out
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        exec(compile(training, "jax-users.md", "exec"), scope)
    close(scope)
    assert scope["before"] == 0 and scope["after"] > scope["UNSEEN"] / 2
    assert capsys.readouterr().out.startswith("loss 0.")


@pytest.mark.parametrize("name", ["joycaption-tiny", pytest.param("smolvlm2-tiny", marks=pytest.mark.slow)])
def test_the_pure_functions_of_other_families_agree_with_the_oracle(in_root, goldens, name, capsys):
    """The last listing."""
    scope: dict = {"FOLDER": goldens / name}
    exec(compile(examples("docs/jax-users.md")[-1], "jax-users.md", "exec"), scope)
    oracle = Oracle(scope["params"], scope["family"])
    session = oracle.start(scope["prompt"], oracle.encode_image(scope["crops"]))
    for token, logits in zip([*scope["caption"].tolist(), None], scope["predictions"](scope["params"]), strict=True):
        np.testing.assert_allclose(session.prediction.logits, logits, atol=1e-4)
        if token is not None:
            session.feed(Token(token))
    gradient = scope["gradient"]
    parts = (gradient.vision.tower.patch_w, gradient.text.layers[0].qkv_w, gradient.text.lm_head_w)
    assert all(np.abs(part.matrix).max() > 0 for part in parts)
    assert "log p = -" in capsys.readouterr().out


@pytest.mark.slow
def test_four_devices_know_what_one_has_learnt(in_root, capsys):
    """The third listing, with the names of both."""
    scope: dict = {}
    with jax.numpy_dtype_promotion("standard"):
        for listing in examples("docs/jax-users.md")[:3]:
            exec(compile(listing, "jax-users.md", "exec"), scope)
    close(scope)
    first, _, last = scope["descent"]
    assert 0 < last < first < 1
    expected = jax.tree.map(lambda leaf, sharding: leaf.sharding == sharding, scope["spread"], scope["shardings"])
    assert (
        all(jax.tree.leaves(expected)) and not scope["spread"].text.layers[0].in_w.matrix.sharding.is_fully_replicated
    )
    assert "loss on 4 devices: " in capsys.readouterr().out


def close(scope: dict) -> None:
    """The model of a listing, and the adapter that it has written."""
    scope["model"].close()
    scope["path"].unlink()
    scope["path"].parent.rmdir()


def test_links_between_the_documents_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))]
    broken = [f"{page.name}: {link}" for page, link in links if "://" not in link and not (page.parent / link).exists()]
    assert len(links) > 15 and not broken


def test_every_test_that_the_documents_name_is_there():
    paths = list((ROOT / "tests").rglob("test_*.py"))  # some have the same name
    files = {path.stem for path in paths}
    everything, checked = "\n".join(path.read_text(encoding="utf-8") for path in paths), 0
    rows = (ROOT / "docs" / "photon-behaviours.md").read_text(encoding="utf-8").splitlines()
    for name in (name for row in rows if row.count("|") == 3 for name in re.findall("`([^`]+)`", row.split("|")[2])):
        if re.fullmatch(r"(tests/)?test_\w+(\.py)?", name):
            assert Path(name).stem in files, name
        elif re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", name):
            assert f"def test_{name}(" in everything, name
            checked += 1
    assert checked > 80
