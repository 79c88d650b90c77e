"""What many GPUs need: the tables of docs/scale.md are those of the command, and move the right way."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from scripts import scale_model
from scripts.scale_model import Assumptions, image_s, needs

DOC = Path(__file__).parents[1] / "docs" / "scale.md"


def test_the_document_has_what_the_command_prints(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale_model.py"])
    scale_model.main()
    printed = capsys.readouterr().out
    assert "| GPUs | 10 | 1,000 |" in printed
    for table in printed.strip().split("\n\n"):
        assert table in DOC.read_text()


@pytest.mark.parametrize("field", dataclasses.fields(Assumptions), ids=lambda field: field.name)
def test_every_assumption_says_where_it_is_from_and_is_used(field):
    assert field.metadata["source"] in ("measured", "computed", "chosen", "assumed") and field.metadata["text"]
    given = Assumptions()
    another = {"model": "moondream-0.5b", "gpu": "L4"}.get(field.name) or 3 * getattr(given, field.name) + 1
    assert needs(given, 1000) != needs(dataclasses.replace(given, **{field.name: another}), 1000)


def test_a_slower_gpu_needs_less_beside_it():
    fast, slow = Assumptions(), Assumptions(gpu="L4")
    assert image_s(slow) > 3 * image_s(fast)
    for name in ("pictures a second", "cores a node", "network in all, Gbit/s", "blocks a second"):
        less, more = (float(needs(given, 1000)[name].replace(",", "")) for given in (slow, fast))
        assert less < more, name


def test_a_gpu_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="L400"):
        needs(Assumptions(gpu="L400"), 10)
