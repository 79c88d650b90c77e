"""`jaxphoton.batch.run`: a whole run as a call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxphoton import Ask, Moondream, batch
from jaxphoton.batch.errors import OptionError, SettingsDiffer, SourceError
from jaxphoton.batch.journal import JournalReader
from jaxphoton.batch.options import NAMES
from jaxphoton.cli.main import main
from tests.batch.helpers import json_lines, make_folder
from tests.cli.conftest import model as model  # noqa: F401, PLC0414 (a fixture)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three images, and one that is none."""
    root = make_folder(tmp_path / "photos", ["a.png", "b.png", "sub/c.png"])
    (root / "bad.png").write_text("junk")
    return root


class Seen(batch.RunObserver):
    """Keeps what it is told."""

    def __init__(self):
        self.notes: list[str] = []
        self.keys: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def image(self, number: int, record) -> None:
        self.keys.append(record.key)


def test_a_folder_becomes_lines_failures_and_a_page_and_nothing_is_printed(model, photos, tmp_path, capfd):
    out, page = tmp_path / "c.jsonl", tmp_path / "page.html"
    seen = Seen()
    result = batch.run(photos, out, observer=seen, report=page)
    assert (result.images, result.done, result.failed, result.lost, result.stopped) == (4, 4, 1, 0, False)
    assert (result.out, result.report, result.journal) == (out, page, tmp_path / "c.jsonl.journal")
    assert {line["key"]: line["reason"] for line in json_lines(out)} == {
        "a.png": "",
        "b.png": "",
        "sub/c.png": "",
        "bad.png": "not-an-image",
    }
    assert result.failures and [line["key"] for line in json_lines(result.failures)] == ["bad.png"]
    assert "sub/c.png" in page.read_text(encoding="utf-8")
    assert sorted(seen.keys) == ["a.png", "b.png", "bad.png", "sub/c.png"]
    assert result.summary["images"] == 4 and any("images in" in note for note in seen.notes)
    assert capfd.readouterr() == ("", "")


def test_the_output_is_there_before_the_model_is_closed(model, photos, tmp_path, monkeypatch):
    out, there = tmp_path / "c.jsonl", []
    monkeypatch.setattr(type(model), "__exit__", lambda *_: there.append(out.exists()))
    batch.run(photos, out)
    assert there == [True]


def test_a_run_that_breaks_off_closes_its_model_before_it_ends(model, photos, tmp_path, monkeypatch):
    happened = []
    monkeypatch.setattr(type(model), "__exit__", lambda *_: happened.append("closed"))

    class Breaks(batch.RunObserver):
        def image(self, number: int, record) -> None:
            raise LookupError("enough")

        def end(self) -> None:
            happened.append("end")

    with pytest.raises(LookupError, match="enough"):
        batch.run(photos, tmp_path / "c.jsonl", observer=Breaks())
    assert happened == ["closed", "end"]


def test_without_an_observer_nothing_is_printed_either(model, photos, tmp_path, capfd):
    assert batch.run([str(photos)], tmp_path / "c.jsonl").done == 4
    assert capfd.readouterr() == ("", "")


def test_a_stopped_run_goes_on(model, photos, tmp_path):
    seen, out = Seen(), tmp_path / "c.jsonl"
    first = batch.run(photos, out, observer=seen, stop=lambda: bool(seen.keys))
    assert first.stopped and 0 < first.done < 4 and len(json_lines(out)) == first.done
    asked = len(model.calls)
    second = batch.run(photos, out)
    assert not second.stopped and second.done == 4 and second.images == 4 - first.images
    assert len(model.calls) == 3 and asked < 3
    third = batch.run(photos, out)
    assert third.images == 0 and third.summary == {} and third.done == 4


def test_an_observer_s_exception_ends_the_run_and_loses_no_image(model, photos, tmp_path):
    class Interrupts(Seen):
        def image(self, number, record):
            super().image(number, record)
            raise KeyboardInterrupt

    out, seen = tmp_path / "c.jsonl", Interrupts()
    with pytest.raises(KeyboardInterrupt):
        batch.run(photos, out, observer=seen)
    with JournalReader(f"{out}.journal") as reader:
        assert [record.key for record in reader.records()] == seen.keys
    assert batch.run(photos, out).done == 4


def test_two_asks_are_one_job(model, photos, tmp_path):
    asks = [Ask("caption", {"length": "short"}), Ask("detect", {"object": "{name}"})]
    batch.run(photos / "a.png", tmp_path / "c.jsonl", asks)
    assert [(skill, arguments) for _, skill, arguments, _ in model.calls] == [
        ("caption", {"length": "short"}),
        ("detect", {"object": "a"}),
    ]
    (line,) = json_lines(tmp_path / "c.jsonl")
    assert [result["task"] for result in line["results"]] == ["caption", "detect"]


def test_an_ask_brings_its_settings(model, photos, tmp_path):
    batch.run(photos / "a.png", tmp_path / "c.jsonl", Ask("caption", settings={"temperature": 1, "seed": 3}))
    assert model.calls[0][3] == {"temperature": 1, "seed": 3}


def test_the_same_run_from_the_command_line_goes_on(model, photos, tmp_path):
    out = tmp_path / "c.jsonl"
    options = {
        "limit": 2,
        "extension": ".caption",
        "exclude": ["bad*"],
        "background": (0, 0, 0),
        "prefix": "a {name}: ",
    }
    assert batch.run(str(photos), out, "caption:short", **options).done == 2
    command = ["caption", str(photos), "--out", str(out), "--tasks", "caption:short", "--extension", ".caption"]
    assert main([*command, "--exclude", "bad*", "--alpha-background", "black", "--prefix", "a {name}: "]) == 0
    assert len(json_lines(out)) == 3 and len(model.calls) == 3


def test_other_settings_are_refused_by_name(model, photos, tmp_path):
    batch.run(photos, tmp_path / "c.jsonl", limit=1)
    with pytest.raises(SettingsDiffer, match="generation.temperature was 0.0 and is now 0.5"):
        batch.run(photos, tmp_path / "c.jsonl", temperature=0.5)
    assert batch.run(photos, tmp_path / "c.jsonl", temperature=0.5, allow_changes=True).done == 4


def test_what_is_none_is_left_to_the_model(model, photos, tmp_path):
    ask = Ask("caption", {"length": None}, {"seed": None, "temperature": np.float32(0.5)})
    assert batch.run(photos / "a.png", tmp_path / "c.jsonl", ask).done == 1
    assert model.calls[0][2:] == ({"length": "normal"}, {"temperature": 0.5})


@pytest.mark.parametrize(
    "option, value, allowed",
    [
        ("limit", 0, "at least 1"),
        ("limit", True, "whole number"),
        ("shard", (2, 2), "the index from 0"),
        ("exclude", "*.png", "a list"),
        ("dedupe", "md5", "none, sha256"),
        ("timeout", 0, "above 0"),
        ("image_timeout", 10**400, "above 0"),
        ("form", "csv", "jsonl, sidecar"),
        ("existing", "keep", "skip, overwrite"),
        ("background", "white", "from 0 to 255"),
        ("dtype", "int8", "float32, bfloat16"),
        ("depth", 3, "1, 2"),
        ("depth", True, "1, 2"),
        ("rows", 2**31, "at most 2147483647"),
        ("options", None, "a RunOptions"),
        ("observer", print, "a RunObserver"),
        ("stop", 3, "a function"),
        ("model", None, "a name or an open Model"),
        ("model", b"shapes", "a name or an open Model"),
        ("replicas", 0, "at least 1"),
        ("mesh", "gpus=2", "a text such as .*data, model, expert"),
        ("temperature", -1, "from 0 to 1000"),
        ("top_p", 0, "above 0"),
        ("captions_per_image", 0, "at least 1"),
        ("retry_loops", -1, "at least 0 and at most 100"),
        ("retry_loops", 101, "at least 0 and at most 100"),
        ("gpu_hour_price", float("inf"), "a number"),
        ("fast_decode", "no", "True or False"),
        ("resize", "quick", "exact, fast"),
        ("report", 5, "a path"),
    ],
)
def test_bad_values_are_refused_with_what_is_allowed(model, photos, tmp_path, option, value, allowed):
    with pytest.raises(OptionError, match=f"^{option} must be .*{allowed}"):
        batch.run(photos, tmp_path / "c.jsonl", **{option: value})
    assert os.listdir(tmp_path) == ["photos"] and not model.loaded


@pytest.mark.parametrize("inputs", [None, 3, b"photos", ["photos", 3]])
def test_inputs_are_paths(tmp_path, inputs):
    with pytest.raises(OptionError, match="^inputs must be a path, not "):
        batch.run(inputs, tmp_path / "c.jsonl")
    with pytest.raises(OptionError, match="^out must be a path, not 3"):
        batch.run(tmp_path, 3)  # type: ignore[arg-type]


def test_unknown_options_are_refused_by_name(photos, tmp_path):
    with pytest.raises(TypeError, match="no option 'limits'; did you mean limit"):
        batch.run(photos, tmp_path / "c.jsonl", limits=3)
    with pytest.raises(TypeError, match=", ".join(NAMES)):
        batch.run(photos, tmp_path / "c.jsonl", zzz=3)


def test_options_that_do_not_go_together(model, photos, tmp_path):
    with pytest.raises(OptionError, match="^report needs a journal: give out or journal$"):
        batch.run(photos, observer=Seen(), report=tmp_path / "page.html")
    with pytest.raises(OptionError, match="^nothing would keep the results"):
        batch.run(photos)
    with pytest.raises(OptionError, match="^out - is standard output"):
        batch.run(photos, "-")
    with pytest.raises(OptionError, match="dedupe is for images that are all asked the same"):
        batch.run(photos, tmp_path / "c.jsonl", Ask("query", {"question": "{name}?"}), dedupe="sha256")
    with pytest.raises(SourceError, match="no image found"):
        batch.run(photos / "sub", tmp_path / "c.jsonl", exclude=["*.png"])


@pytest.mark.parametrize(
    "ask, fault",
    [
        ([], "nothing is asked"),
        (Ask("dance"), "'dance' is none of caption, query"),
        (Ask("query"), "query needs question="),
        (Ask("query", {"question": 5}), "question cannot be 5"),
        (Ask("caption", {"size": "short"}), "takes no 'size' in a run; it takes length"),
        (Ask("caption", {"length": True}), "length cannot be True"),
        (Ask("caption", {"extra": "no-text"}), "extra cannot be 'no-text'"),
        (Ask("caption", {"extra": [5]}), r"extra cannot be \[5\]"),
        (Ask("caption", {"type": "danbooru"}), "this model has no caption types"),
        (Ask("caption", {"length": 50}), "length must be one of"),
        (Ask("caption", deadline=1.0), "deadlines"),
        (Ask("caption", settings={"schema": {}}), "the setting 'schema' is none of a run's"),
        (Ask("caption", settings={"temperature": -1}), "temperature must be a number from 0 to 1000"),
        (Ask("caption", settings={"seed": "x"}), "seed must be an integer from 0"),
        (Ask("caption", settings=3), "settings must be a mapping"),  # type: ignore[arg-type]
        (None, "must be an Ask, a list of them or a text, not None"),
        (b"caption", "must be an Ask, a list of them or a text, not b'caption'"),
        ([Ask("caption", settings={"seed": 1}), Ask("caption")], "the same settings"),
        ([5], "must be an Ask, a list of them or a text, not 5"),
        ("caption:tiny", "no caption types: it takes length, and not type='tiny'"),
    ],
)
def test_what_cannot_be_asked(model, photos, tmp_path, ask, fault):
    with pytest.raises(batch.BatchError, match=fault):
        batch.run(photos, tmp_path / "c.jsonl", ask)
    assert os.listdir(tmp_path) == ["photos"] and not model.loaded


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """A folder of two images, and what a script without a main guard made of it."""
    place = tmp_path_factory.mktemp("script")
    root, out = make_folder(place / "photos", ["a.png", "b.png"]), place / "c.jsonl"
    (place / "script.py").write_text(
        "from jaxphoton import batch\n"
        f"result = batch.run({str(root)!r}, {str(out)!r}, workers=1)\n"
        "print(result.done, result.failed)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(place / "script.py")]
    return root, out, subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_a_script_without_a_main_guard(script):
    """Its image workers are new programs, and none runs the script again."""
    _, out, done = script
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 0\n", "")
    assert len(json_lines(out)) == 2


def test_an_open_model_answers_and_stays_open(script, tmp_path):
    root, named, _ = script
    out = tmp_path / "c.jsonl"
    with Moondream.from_pretrained("shapes") as open_model:
        with pytest.raises(OptionError, match="^rows is said when a model is loaded"):
            batch.run(root, out, model=open_model, rows=2)
        with pytest.raises(OptionError, match="^fast_decode is said when a model is loaded"):
            batch.run(root, out, model=open_model, fast_decode=True)
        assert batch.run(root, out, model=open_model, limit=1).done == 1
        # The same parameters, of which nobody knows the files any more: another model, as far as a journal can tell.
        open_model.path = None
        with pytest.raises(SettingsDiffer, match="; model was|: model was"):
            batch.run(root, out, model=open_model)
        assert batch.run(root, out, model=open_model, restart=True, limit=1).done == 1
        assert batch.run(root, out, model=open_model).done == 2
        assert open_model.caption(root / "a.png")["caption"]
    assert {line["caption"] for line in json_lines(named)} == {line["caption"] for line in json_lines(out)}
