"""Traces are read back, the window is a typical one, and the picture can be drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxphoton.cli.main import main
from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.measure.lanes import STEPS, Run, TraceError, read_run, windows
from jaxphoton.measure.timeline import Recorder

pytest.importorskip("matplotlib", reason="drawing is an extra (plot)")

PREFILLS = (0, 1, 4, 9)
SLOW = 12  # a step that waited for a compilation


def record(path: Path, depth: int, period: float = 0.01, steps: int = 40) -> Path:
    """A run of one launch every `period` seconds, each read when the one `depth` later has been launched."""
    recorder, began = Recorder(), 0.0
    for number in range(steps):
        length = 50 * period if number == SLOW else period
        arrived = began + 0.9 * length + (depth - 1) * period
        parts = {"plan": 0.1 * period, "launch": 0.2 * period, "sample": 0.0, "sampled": 0.0}
        kind, images = ("prefill", 1) if number in PREFILLS else ("step", 0)
        slot = number % depth
        recorder.launch(
            LaunchMetrics(
                number, kind, 8, 0, images, 3, slot, began, arrived, **parts, wait=0.5 * period, commit=0.05 * period
            )
        )
        began += length
    path.write_text(json.dumps(recorder.trace(depth=depth, model="shapes", device="cpu")), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return [record(tmp_path / "blocking.json", 1, 0.012), record(tmp_path / "pipelined.json", 2)]


def test_a_steady_window_is_whole_steps_without_prefill_or_compilation(files):
    for run in map(read_run, files):
        numbers = [bar.launch for bar in run.steady()]
        assert numbers == list(range(numbers[0], numbers[0] + STEPS))
        assert not {*PREFILLS, SLOW} & set(numbers)


def test_windows_have_one_length_and_hold_the_steps(files):
    runs = [read_run(path) for path in files]
    chosen = windows(runs, None, None)
    assert chosen[0][1] - chosen[0][0] == pytest.approx(chosen[1][1] - chosen[1][0])
    for run, (begin, end) in zip(runs, chosen, strict=True):
        assert all(begin <= bar.begin and bar.end <= end for bar in run.steady())
    assert windows([*runs, Run("x", "", 1, runs[0].bars[:1])], 0.0, 7.0) == [(0.0, 7.0)] * 3
    assert windows(runs, 5.0, 7.0) == [(5.0, 12.0)] * 2


def test_a_short_run_is_shown_as_it_is(tmp_path):
    run = read_run(record(tmp_path / "short.json", 2, steps=4))
    assert [bar.launch for bar in run.steady()] == [2, 3]


def test_a_run_without_steps_or_a_window_behind_the_end_is_refused(files):
    with pytest.raises(TraceError, match="no decode step"):
        Run("x.json", "", 1, ()).steady()
    with pytest.raises(TraceError, match="nothing between 100000 and"):
        windows([read_run(files[0])], 1e5, None)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("[]", "not a trace written by"),
        ('{"traceEvents": []}', "not a trace written by"),
        ('{"otherData": {"producer": "jaxphoton"}, "traceEvents": []}', "broken"),
        ('{"otherData": {"producer": "jaxphoton", "depth": 1}, "traceEvents": [{"ph": "X", "pid": 1}]}', "broken"),
    ],
)
def test_files_that_are_no_trace_are_named_with_their_fault(tmp_path, capsys, text, fault):
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    assert main(["timeline", str(path), "--png", str(tmp_path / "x.png")]) == 1
    error = capsys.readouterr().err
    assert "bad.json" in error and fault in error
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("options", [[], ["--start-ms", "0", "--window-ms", "900"]])
def test_the_command_writes_a_picture(files, tmp_path, options):
    from PIL import Image

    png = tmp_path / "lanes.png"
    assert main(["timeline", *map(str, files), "--png", str(png), *options]) == 0
    with Image.open(png) as picture:
        assert picture.format == "PNG" and picture.width > 1000
        colours = picture.convert("RGB").getcolors(1 << 24) or []
    # Bars of steps, launches and commits are there.
    assert {(0x56, 0xB4, 0xE9), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)} <= {colour for _, colour in colours}


def test_files_that_cannot_be_read_or_written(files, tmp_path, capsys):
    assert main(["timeline", str(tmp_path / "gone.json"), "--png", str(tmp_path / "x.png")]) == 1
    assert "gone.json: No such file" in capsys.readouterr().err
    assert main(["timeline", str(files[0]), "--png", str(tmp_path / "no" / "x.png")]) == 1
    assert "x.png: No such file" in capsys.readouterr().err


def test_without_matplotlib_it_is_said_what_to_install(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxphoton.cli.base.find_spec", lambda name: None)
    assert main(["timeline", str(files[0]), "--png", str(tmp_path / "x.png")]) == 1
    assert "jaxphoton[plot]" in capsys.readouterr().err
