"""How far a run is, as it is shown."""

from __future__ import annotations

import io
from typing import Any

import pytest

from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.summary import Tally
from jaxphoton.cli.shown import Progress

pytestmark = pytest.mark.smoke

TEXT = {"task": "caption", "caption": "a cat", "tokens": 7, "finish_reason": "stop"}


def test_a_bar_s_rate_does_not_know_of_the_compiling():
    terminal, tally = io.StringIO(), Tally()
    terminal.isatty = lambda: True
    with Progress(tally, lambda: 8, 0, terminal) as progress:
        bar: Any = progress._bar
        later = bar.start_t + 1000.0  # so long it compiled
        bar._time = lambda: later
        tally.start(1000.0)
        progress.start()
        assert bar.format_dict["elapsed"] == 0 and tally.compiling == 1000.0


def test_nobody_looks_at_a_closed_stderr(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", None)
    with Progress(Tally(), lambda: 8, 0, log_s=0.0) as progress:
        progress.update()
    assert capsys.readouterr().out == ""


def test_a_log_gets_a_line_now_and_then():
    stream, tally = io.StringIO(), Tally()
    with Progress(tally, lambda: 8, 2, stream, log_s=0.0) as progress:
        assert progress.total(60) == 8
        tally.add(Record("a", "failed", reason="empty"))
        progress.update()
        tally.add(Record("b", "ok", results=(TEXT,)))
        progress.update()
    first, second = stream.getvalue().splitlines()
    assert first.startswith("3 of 8 (38%) images") and "1 failed" in first
    assert second.startswith("4 of 8 (50%) images") and "tokens/s" in second and second.endswith("left")


def test_progress_goes_on_where_nobody_can_count():
    def count():
        raise OSError("no listing")

    stream, tally = io.StringIO(), Tally()
    with Progress(tally, count, 0, stream, log_s=0.0) as progress:
        assert progress.total(60) is None
        tally.add(Record("a", "ok", results=(TEXT,)))
        progress.update()
    assert stream.getvalue().startswith("1 images")
