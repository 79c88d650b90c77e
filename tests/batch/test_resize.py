"""How the pictures of a run are resized: as its journal was begun, if nobody says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jaxphoton import batch
from jaxphoton.batch.errors import OptionError, SettingsDiffer
from jaxphoton.batch.journal import Header, JournalReader
from jaxphoton.batch.journal.reading import latest_header
from jaxphoton.cli.main import main
from jaxphoton.image.ways import fast_fault
from tests.batch.helpers import make_folder
from tests.cli.conftest import model as model  # noqa: F401, PLC0414 (a fixture)


@pytest.fixture
def photos(tmp_path) -> Path:
    return make_folder(tmp_path / "photos", ["a.png", "b.png", "c.png"])


def made_before(journal: Path) -> None:
    """Makes it one of a time in which everything was resized exactly, and nobody said so."""
    header, *records = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    values = json.loads(header)
    assert values["settings"]["pictures"].pop("resize")
    journal.write_text("".join([json.dumps(values) + "\n", *records]), encoding="utf-8")


def test_a_run_is_fast_unless_it_is_to_be_exact(model, photos, tmp_path):
    batch.run(photos, tmp_path / "c.jsonl")
    assert model.loaded["resize"] == "fast"
    with JournalReader(tmp_path / "c.jsonl.journal") as journal:
        assert journal.header.settings["pictures"]["resize"] == journal.header.resize == "fast"
    batch.run(photos, tmp_path / "d.jsonl", resize="exact")
    assert model.loaded["resize"] == "exact"


def test_a_run_goes_on_as_it_was_begun(model, photos, tmp_path):
    batch.run(photos, tmp_path / "c.jsonl", resize="exact", limit=1)
    assert batch.run(photos, tmp_path / "c.jsonl", limit=2).done == 2
    assert model.loaded["resize"] == "exact"
    with pytest.raises(SettingsDiffer, match='pictures.resize was "exact" and is now "fast"$'):
        batch.run(photos, tmp_path / "c.jsonl", resize="fast")
    assert batch.run(photos, tmp_path / "c.jsonl", resize="fast", limit=3, allow_changes=True).done == 3
    header = latest_header(tmp_path / "c.jsonl.journal")
    assert header is not None and header.resize == "fast"
    assert batch.run(photos, tmp_path / "c.jsonl", restart=True, limit=1).done == 1
    assert model.loaded["resize"] == "fast"


def test_a_journal_of_before_goes_on_exactly(model, photos, tmp_path):
    out = tmp_path / "c.jsonl"
    batch.run(photos, out, resize="exact", limit=1)
    made_before(tmp_path / "c.jsonl.journal")
    with pytest.raises(SettingsDiffer, match='pictures.resize was "exact" and is now "fast"$'):
        batch.run(photos, out, resize="fast")
    assert main(["caption", str(photos), "--out", str(out)]) == 0
    assert model.loaded["resize"] == "exact" and len(model.calls) == 3
    # The line of settings did not change: nothing was said otherwise.
    assert (tmp_path / "c.jsonl.journal").read_text(encoding="utf-8").count('"jaxphoton_journal"') == 1


def test_the_command_line_says_it_too(model, photos, tmp_path, capsys):
    command = ["caption", str(photos), "--out", str(tmp_path / "c.jsonl"), "--limit", "1"]
    assert main([*command, "--resize", "exact"]) == 0
    assert model.loaded["resize"] == "exact"
    assert main([*command, "--resize", "fast"]) == 1
    assert 'pictures.resize was "exact" and is now "fast"' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--resize", "quick"])


def test_where_the_resizer_lacks_a_fast_run_is_refused_before_anything_is_done(model, photos, tmp_path, monkeypatch):
    batch.run(photos, tmp_path / "c.jsonl", limit=1)
    model.loaded = {}
    monkeypatch.setattr("jaxphoton.batch.opening.fast_fault", lambda: "needs the package cykooz-resizer (gone)")
    each: tuple[dict[str, Any], ...] = ({}, {"resize": "fast"})
    for options in each:  # the journal's, or one's own
        with pytest.raises(
            OptionError, match="^resize fast needs the package cykooz-resizer .*; exact is always there"
        ):
            batch.run(photos, tmp_path / "c.jsonl", **options)
    assert not model.loaded
    assert batch.run(photos, tmp_path / "c.jsonl", resize="exact", allow_changes=True).done == 3


def test_the_latest_header_of_what_is_no_journal(tmp_path):
    assert fast_fault() is None
    assert latest_header(tmp_path / "none") is None
    (tmp_path / "text").write_text("text\n")
    assert latest_header(tmp_path / "text") is None
    assert Header({}, "m").resize == "exact"
