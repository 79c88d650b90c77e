"""Braces in texts: variables, doubled braces, and all others."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.errors import BatchError, EntryError
from jaxphoton.batch.questions import Question, Questions
from jaxphoton.batch.sources import Item, SourceOptions, open_source
from jaxphoton.batch.variables import fill, variables
from tests.batch.helpers import make_folder, make_table, make_tar, picture

ITEM = Item("d/scene_01.png", "/x/d/scene_01.png", bytes, columns={"thing": "a {name} {{hat}}"})


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{name} in {dir}", "scene_01 in d"),
        ("{{name}}", "{name}"),
        ("{{{name}}}", "{scene_01}"),
        ("{{{{name}}}}", "{{name}}"),
        (r"\frac{a}{b}", r"\frac{a}{b}"),
        (r"\frac{1}{\sqrt{2}}", r"\frac{1}{\sqrt{2}}"),
        (r"\frac{{a}}{{b}}", r"\frac{a}{b}"),
        ('{"a": {"b": "{name}"}}', '{"a": {"b": "scene_01"}}'),
        ('{{"a": {{"b": 1}}}}', '{"a": {"b": 1}}'),
        ("{{ name }}", "{ name }"),
        ("{name}}", "scene_01}"),
        ("{{name}", "{{name}"),
        ("}}{{", "}}{{"),
        ("{} {0} {not a variable} {ä} {", "{} {0} {not a variable} {ä} {"),
        ("{{}}", "{}"),
        ("{thing}!", "a {name} {{hat}}!"),
    ],
)
def test_braces(text, filled):
    assert fill(text, ITEM, known=("thing",)) == filled


@given(st.text("{}ab ", max_size=20))
def test_without_variables_and_pairs_of_doubled_braces_a_text_stays(text):
    shown = fill(text, ITEM, known=())
    assert shown == text or ("{{" in text and "}}" in text and len(shown) < len(text))
    # Doubling every brace says any text whatever.
    assert fill(text.replace("{", "{{").replace("}", "}}"), ITEM) == text or not balanced(text)


def balanced(text: str) -> bool:
    depth = 0
    for sign in text:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0


@given(st.text("{}n", max_size=12).map(lambda text: text.replace("n", "{name}")))
def test_what_is_named_a_variable_is_one(text):
    """And nothing is taken for one that is filled in otherwise."""
    if re.search(r"(?<!\{)\{name\}(?!\})", text):
        assert "name" in variables(text)
    assert ("scene_01" in fill(text, ITEM, known=())) == ("name" in variables(text))


def test_a_text_beside_an_image_may_have_a_byte_order_mark_and_never_blocks(tmp_path):
    make_folder(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfold\r\n")
    os.mkfifo(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfeo\0")
    assert [fill("{caption}", item) for item in open_source(str(tmp_path)).items()] == ["old", "", ""]


def questions(text: str, **around: Any) -> Questions:
    return Questions((Question("query", text),), **around)


def sources(folder) -> dict[str, str]:
    """Inputs with the columns "thing" and "txt", by kind."""
    make_folder(folder, ["a.png"])
    rows = [{"image": "a.png"}, {"image": "a.png", "key": "b", "thing": "hat", "txt": "old"}]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "x.txt").write_text("a.png\n")
    sample = {"1.png": picture(1), "1.txt": b"old", "1.json": b'{"thing": "hat"}'}
    return {
        "folder": str(folder),
        "list": str(folder / "x.txt"),
        "lines": str(folder / "x.jsonl"),
        "tar": str(make_tar(folder / "x.tar", sample)),
    }


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_without_columns_any_other_name_is_text(tmp_path, kind):
    source = open_source(sources(tmp_path)[kind])
    bound = questions("{a} {name}", prefix="{thing}").over(source.columns(("a", "thing")))
    assert bound.columns == () and bound.varies and bound.plain_words == ("a", "thing")
    assert not questions("{a} {{name}}").over(()).varies
    (item,) = (item for item in source.items() if item.key.endswith("a.png"))
    (ask,) = bound.asks(item)
    assert ask.arguments["question"] == "{a} a"


@pytest.mark.parametrize("kind", ["lines", "tar", "table", "several"])
def test_with_columns_an_unknown_name_is_an_error_that_names_the_known(tmp_path, kind):
    inputs = sources(tmp_path)
    if kind == "table":
        pytest.importorskip("pyarrow")
        spec = make_table(tmp_path / "x.parquet", {"image": [picture()], "thing": ["hat"], "txt": ["old"]})
    else:
        spec = [inputs["folder"], inputs["lines"]] if kind == "several" else inputs[kind]
    source = open_source(spec, SourceOptions())
    with pytest.raises(BatchError, match=r"\{thng\} is no variable here.*name, dir, caption.*thing") as caught:
        questions("A {thng}?").over(source.columns(("thng",)))
    assert "{{thng}}" in str(caught.value)
    bound = questions("A {thing} {txt}? {{a}}").over(source.columns(("thing", "txt")))
    assert bound.columns == ("thing", "txt") and bound.varies


def test_an_image_without_a_column_that_others_have_fails_alone(tmp_path):
    inputs = sources(tmp_path)
    names = ("thing",)
    source = open_source([inputs["folder"], inputs["lines"]], SourceOptions(required_columns=names))
    bound = questions("q", prefix="{thing}: ").over(source.columns(names))
    (lacking,) = (item for item in source.items() if item.path.endswith("a.png") and not item.columns)
    with pytest.raises(EntryError, match="no column 'thing'"):
        bound.asks(lacking)
