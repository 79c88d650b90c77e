"""`--adapter`, with a stand-in for the model: who is asked with which, and what of it the journal knows."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pytest

from jaxphoton.batch.errors import BatchError, OptionError
from jaxphoton.batch.options import RunOptions
from jaxphoton.batch.running import run
from jaxphoton.batch.workers.protocol import ask_of, ask_task
from jaxphoton.cli.main import build_parser, main
from jaxphoton.cli.serve import _backend
from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.models.naming import WeightsError
from jaxphoton.requests.ask import Ask
from tests.batch.helpers import json_lines
from tests.batch.requests.fake import PICTURE, request, write

pytestmark = pytest.mark.smoke


@pytest.fixture
def adapters(model, monkeypatch):
    """Seeds of the adapters at paths: what is read is another adapter once its seed is another."""
    seeds = {"/a/cats": 1, "/a/dogs": 2}

    def load(path, family, name):
        if path not in seeds:
            raise WeightsError(f"{path}: no such file or folder")
        pair = LowRank(np.ones((1, 2), np.float32), np.full((3, 1), seeds[path], np.float32))
        return Adapter.of(name, {"some.matrix": pair}, path)

    monkeypatch.setattr("jaxphoton.weights.adapters.load_adapter", load)
    return seeds


def sources(model) -> dict[str, str]:
    """Of the adapters that the model was loaded with: those that the journal knows, and not read a second time."""
    return {name: adapter.source for name, adapter in model.loaded["adapters"].items()}


def test_every_image_is_asked_with_the_one(model, adapters, folder, tmp_path):
    out = tmp_path / "x.jsonl"
    for command in (["caption"], ["query", "--question", "?"], ["detect", "--object", "cat"]):
        assert main([*command, str(folder), "--out", str(out), "--restart", "--adapter", "cats=/a/cats"]) == 0
        assert sources(model) == {"cats": "/a/cats"} and {*model.adapters} == {"cats"}
        assert all("adapter" not in line for line in json_lines(out))
        model.adapters.clear()
    assert main([*command, str(folder)]) == 0 and {*model.adapters} == {None} and "adapters" not in model.loaded


def test_one_that_has_changed_is_refused(model, adapters, folder, tmp_path, capsys):
    command = ["caption", str(folder), "--out", str(tmp_path / "x.jsonl")]
    with_one = [*command, "--adapter", "cats=/a/cats"]
    assert main([*with_one, "--limit", "1"]) == 0
    adapters["/moved"] = adapters["/a/cats"]
    assert main([*command, "--adapter", "cats=/moved", "--limit", "2"]) == 0
    for changed in (command, [*command, "--adapter", "cats=/a/dogs"], [*command, "--adapter", "other=/a/cats"]):
        assert main(changed) == 1
        assert 'adapters was ["cats ' in (said := capsys.readouterr().err) and "--allow-changes" in said
    adapters["/a/cats"] = 3
    assert main(with_one) == 1 and main([*with_one, "--allow-changes"]) == 0
    assert len(model.adapters) == 3


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (
            ["--adapter", "cats=/a/cats", "--adapter", "dogs=/a/dogs"],
            "--adapter: there is cats, dogs, and nothing says",
        ),
        (
            ["--adapter", "cats=/a/cats", "--adapter", "cats=/a/dogs"],
            "--adapter must be paths of adapters by name, each",
        ),
        (["--adapter", "cats=/a/lost"], "adapter 'cats': /a/lost: no such file or folder"),
        (["--adapter", "cats"], "--adapter: 'cats' is not of the form NAME=PATH"),
        (["--adapter", "cats="], "is not of the form NAME=PATH"),
        (["--adapter", "=/a/cats"], "the name of an adapter must be 1 to 200 printable characters"),
        (["--adapter", "../cats=/a/cats"], "has no slash and begins with no dot"),
    ],
)
def test_what_is_refused(model, adapters, folder, tmp_path, capsys, given, fault):
    try:
        code = main(["caption", str(folder), "--out", str(tmp_path / "x.jsonl"), *given])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 1 and fault in capsys.readouterr().err and not model.calls


def test_asks_of_a_run_may_differ(model, adapters, folder, tmp_path):
    out, given = tmp_path / "x.jsonl", {"cats": "/a/cats", "dogs": "/a/dogs"}
    (folder / "bad.png").write_bytes(b"junk")
    asks = [Ask("caption", settings={"variant": name}) for name in (None, "cats", "dogs")]
    run(str(folder), out, asks, model="any", adapters=given)
    assert model.adapters == [None, "cats", "dogs"] * 3
    for line in json_lines(out):
        failed = line["reason"] != ""
        assert [row["adapter"] for row in line["results"]] == (["", "", ""] if failed else ["", "cats", "dogs"])
    with pytest.raises(OptionError, match="there is cats, dogs, and nothing says which"):
        run(str(folder), out, "caption", model="any", adapters=given)
    with pytest.raises(BatchError, match="no adapter 'birds'; there is cats, dogs"):
        run(str(folder), tmp_path / "y.jsonl", Ask("caption", adapter="birds"), model="any", adapters=given)


@pytest.mark.parametrize(
    "value", [3, "cats", ["cats"], {"cats": 3}, {"": "/a"}, {"a/b": "/a"}, {3: "/a"}, [("a", "/a"), ("a", "/b")]]
)
def test_adapters_of_a_run_are_paths_by_name(value):
    with pytest.raises(OptionError, match="adapters must be paths of adapters by name"):
        RunOptions().changed(adapters=value)


def test_lines_of_a_file_choose(model, adapters, tmp_path, capsys):
    bodies = {
        "none": {},
        "model": {"model": "any/cats"},
        "settings": {"settings": {"adapter": "dogs"}},
        "other": {"model": "gpt-4/turbo"},
        "both": {"model": "any/cats", "settings": {"variant": "dogs"}},
        "lost": {"model": "any/tune@5"},
        "wrong": {"settings": {"adapter": 5}},
    }
    asks = write(tmp_path / "in.jsonl", [request(name, image_url=PICTURE, **body) for name, body in bodies.items()])
    command = ["run-batch", str(asks), str(out := tmp_path / "out.jsonl")]
    command += ["--adapter", "cats=/a/cats", "--adapter", "dogs=/a/dogs"]
    assert main(command) == 2
    assert model.adapters == [None, "cats", "dogs", None]
    assert sources(model) == {"cats": "/a/cats", "dogs": "/a/dogs"}
    codes = [line["response"]["status_code"] for line in json_lines(out)]
    assert codes == [200, 200, 200, 200, 400, 404, 400]
    adapters["/a/dogs"] = 5
    capsys.readouterr()
    assert main([*command, "--retry-failed"]) == 1
    assert "adapters.dogs was" in capsys.readouterr().err


def served(*given: str) -> argparse.Namespace:
    return build_parser()[0].parse_args(["serve", *given])


def test_serve_loads_them_with_room(model, tmp_path):
    _backend(served("--adapter", "cats=/a/cats", "--adapter-folder", str(tmp_path)))
    assert model.loaded["adapters"] == {"cats": "/a/cats"} and model.loaded["adapter_folder"] == str(tmp_path)
    assert model.engine_config.adapter_slots == 0  # as many as it takes, when it starts
    for given, slots, rank in ((["--adapter-slots", "2"], 2, 32), (["--adapter-rank", "64"], 4, 64)):
        model.engine_config = type(model.engine_config)()
        _backend(served(*given))
        assert (model.engine_config.adapter_slots, model.engine_config.adapter_rank) == (slots, rank)


def test_serve_hands_them_to_its_processes(tmp_path):
    (tmp_path / "dogs.pt").touch()
    given = ["--adapter", "cats=/a/cats", "--adapter-folder", str(tmp_path), "--replicas", "1", "--adapter-rank", "8"]
    backend: Any = _backend(served(*given))
    (_, options, engine), _ = backend._arguments
    assert options == {"path_or_id": "shapes", "adapters": {"cats": "/a/cats"}, "adapter_folder": str(tmp_path)}
    assert (engine.adapter_slots, engine.adapter_rank) == (4, 8)
    assert backend.adapters.names() == ("cats", "dogs") and "dogs" in backend.adapters and "x" not in backend.adapters
    assert backend.run_model().adapters == ("cats",)


def test_serve_refuses_no_folder_and_a_name_twice(tmp_path, capsys):
    with pytest.raises(SystemExit):
        served("--adapter-folder", str(tmp_path / "none"))
    assert "is no folder" in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--adapter", "a=/a", "--adapter", "a=/b"]) == 1
    assert "a name can stand for one adapter only" in capsys.readouterr().err


def test_a_process_is_told_the_adapter():
    ask = Ask("caption", {}, {"seed": 1}, adapter="cats")
    assert ask_of(ask_task(b"pixels", ask, None).message) == ask
