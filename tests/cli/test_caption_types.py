"""`--caption-type`, `--extra` and `--name`: asked for, told in the journal, and refused where a model has none."""

from __future__ import annotations

import pytest

from jaxphoton import Ask, batch
from jaxphoton.cli.main import main
from jaxphoton.models.joycaption.captions import EXTRAS, TYPES
from jaxphoton.models.joycaption.config import ModelConfig
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from tests.batch.helpers import json_lines


@pytest.fixture
def joycaption(model, monkeypatch):
    """The stand-in, as a JoyCaption."""
    monkeypatch.setattr(
        "jaxphoton.weights.hub.check", lambda path: JoyCaptionFamily(ModelConfig(image_token_index=30_000))
    )
    return model


def exit_code(command) -> object:
    try:
        return main(command)
    except SystemExit as end:
        return end.code


def test_they_are_asked_for(joycaption, folder, capsys):
    more = "--caption-length 50 --caption-type danbooru --extra no-text,lighting --extra pg".split()
    assert main(["caption", str(folder / "b.png"), *more, "--name", "{x}, Ann"]) == 0
    asked = {"length": "50", "type": "danbooru", "extra": ("no-text", "lighting", "pg"), "name": "{x}, Ann"}
    assert [call[1:3] for call in joycaption.calls] == [("caption", asked)]


def test_they_are_asked_for_from_python(joycaption, folder, tmp_path):
    ask = Ask("caption", {"length": 50, "type": "Art Critic", "extra": ["pg"], "name": None})
    batch.run(folder, tmp_path / "x.jsonl", ask, limit=1)
    batch.run(folder, tmp_path / "y.jsonl", "caption:art-critic", limit=1)
    assert [call[2] for call in joycaption.calls] == [
        {"length": "50", "type": "art-critic", "extra": ("pg",)},
        {"length": "normal", "type": "art-critic"},
    ]


def test_several_types_of_one_image_are_told_apart(joycaption, folder, tmp_path):
    out = tmp_path / "x.jsonl"
    tasks = "caption:danbooru,caption:long,caption"
    assert main(["caption", str(folder / "b.png"), "--tasks", tasks, "--extra", "pg", "--out", str(out)]) == 0
    assert [call[2] for call in joycaption.calls] == [
        {"length": "normal", "type": "danbooru", "extra": ("pg",)},
        {"length": "long", "extra": ("pg",)},
        {"length": "normal", "extra": ("pg",)},
    ]
    (line,) = json_lines(out)
    assert [(each["length"], each["type"]) for each in line["results"]] == [
        ("normal", "danbooru"),
        ("long", ""),
        ("normal", ""),
    ]


@pytest.mark.parametrize("changed", ["--caption-type=e621", "--extra=pg", "--name=Bob", "--length=20", None])
def test_a_run_goes_on_with_the_same_and_refuses_others(joycaption, folder, tmp_path, capsys, changed):
    command = ["caption", str(folder), "--out", str(tmp_path / "x.jsonl"), "--caption-type", "rule34"]
    given = {"--caption-type": "rule34", "--extra": "no-text", "--name": "Ann", "--length": "short"}
    options = [part for pair in given.items() for part in pair]
    assert main([*command, *options, "--limit", "1"]) == 0
    if changed is not None:
        assert main([*command, *options, changed]) == 1
        assert "caption:short (type rule34, extra no-text, name 'Ann')" in capsys.readouterr().err
        return
    assert main([*command, *options, "--caption-type", "Rule34"]) == 0
    assert len(json_lines(tmp_path / "x.jsonl")) == 3


def test_a_journal_from_before_there_were_types_goes_on(joycaption, folder, tmp_path):
    command = ["caption", str(folder), "--out", str(tmp_path / "x.jsonl")]
    assert main([*command, "--limit", "1"]) == 0
    assert '"tasks": ["caption:normal"]' in (tmp_path / "x.jsonl.journal").read_text(encoding="utf-8")
    assert main(command) == 0 and len(json_lines(tmp_path / "x.jsonl")) == 3


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--caption-type", "poem"], "type must be one of descriptive"),
        (["--extra", "no-text,smell"], "extra must be one of name, no-fixed-traits"),
        (["--extra", "no-text,"], "no-text, is not a list of options"),
        (["--length", "1001"], "or a number of words up to 1000"),
        (["--caption-type", "danbooru", "--prompt", "Why?"], "--prompt takes the place"),
        (["--name", "Ann", "--prompt", "Why?"], "--prompt takes the place"),
        (["--name", " "], "must not be empty"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_loaded(joycaption, folder, capsys, options, fault):
    assert exit_code(["caption", str(folder), *options]) == 1
    assert fault in capsys.readouterr().err and not joycaption.loaded


@pytest.mark.parametrize("options", [["--caption-type", "danbooru"], ["--extra", "pg"], ["--name", "Ann"]])
def test_other_models_say_that_they_have_none(model, folder, capsys, options):
    assert main(["caption", str(folder), *options]) == 1
    assert "this model has no caption types" in capsys.readouterr().err and not model.loaded


@pytest.mark.parametrize("length", ["very-long", "50"])
def test_other_models_say_which_lengths_they_have(model, folder, capsys, length):
    assert main(["caption", str(folder), "--length", length]) == 1
    assert f"length must be one of 'short', 'normal', 'long', not '{length}'" in capsys.readouterr().err


def test_all_of_them_are_in_the_help_and_their_sentences_in_a_list(capsys):
    for option, values in (("--help", ()), ("--list-caption-types", [*EXTRAS.values(), TYPES["e621"].counted])):
        assert exit_code(["caption", option]) == 0
        shown = capsys.readouterr().out
        assert all(key in shown for key in (*TYPES, *EXTRAS, *values))
