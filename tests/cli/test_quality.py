"""`jaxphoton quality`: its object and its files, with the models left out; its refusals."""

from __future__ import annotations

import json

import pytest

from jaxphoton.cli.main import main
from jaxphoton.measure.quality.captions import Difference
from jaxphoton.measure.quality.run import FormReport

EXACT = Difference(0.5, 0.1, 0.01, 1.0, 1.0, 1.0)


@pytest.fixture
def compared(monkeypatch):
    """What `compare_forms` is called with; it finds every form equal."""
    calls = []

    def compare(subject, against, forms):
        calls.append((subject, against.name, [form.name for form in forms]))
        yield FormReport(against.name, 100, None, {})
        yield from (FormReport(form.name, 50, EXACT, {}) for form in forms)

    monkeypatch.setattr("jaxphoton.measure.quality.run.compare_forms", compare)
    return calls


def test_the_packaged_model_is_scored_on_scenes(compared, capsys):
    assert main(["quality", "--shapes", "2", "--quantize", "int8,int4+head=none", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    ((subject, against, forms),) = compared
    assert (against, forms) == ("float32", ["int8", "int4+head=none"])
    assert subject.scenes == len(subject.pictures) == report["pictures"] == report["scenes"] == 2
    assert [form["name"] for form in report["forms"]] == ["float32", *forms]
    assert report["forms"][1]["difference"]["logits_max"] == 0.5


def test_a_folder_is_captioned_and_the_table_kept(compared, capsys, folder, tmp_path):
    file = tmp_path / "quality.md"
    assert main(["quality", str(folder), "--against", "bfloat16", "--out", str(file)]) == 0
    ((subject, against, forms),) = compared
    assert subject.scenes == 0 and len(subject.pictures) == 3
    assert (against, forms) == ("bfloat16", ["int8", "float8", "int4", "int4-64"])
    assert "int4-64" in capsys.readouterr().out
    assert file.read_text(encoding="utf-8").startswith("### shapes: 3 pictures")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--quantize", "int8,int5"], "no form of weights 'int5'"),
        (["--quantize", "int8,int4,int8"], "the form int8 is named twice"),
        (["--against", "int4+head"], "'head' in the form"),
        (["--model", "nowhere"], "nowhere: no such file or folder"),
        (["nowhere.png"], "nowhere.png"),
        (["--shapes", "1", "--out", "nowhere/quality.md"], "--out nowhere/quality.md"),
    ],
)
def test_refusals_name_the_fault(arguments, fault, compared, capsys):
    try:
        code = main(["quality", *arguments])
    except SystemExit as exit:  # the parser's own
        code = exit.code
    assert code == 1 and fault in capsys.readouterr().err
