"""Outlines: from tokens to a box and an SVG path, whole or not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.models.moondream.skills.segment import Outline, Segment
from jaxphoton.requests.tokens import Generation, Token

PIECES = [*"MLHVCSQTAZmlhvcsqtaz", " ", "-", "0", "1", "-96", "480", "1000", "7.5", "x", "\ufffd", "²", "ſ"]
FIRST = 21  # ids below are no text


def decode(ids) -> str:
    return "".join(PIECES[i - FIRST] for i in ids)


def text(path: str) -> list[Token]:
    return [Token(FIRST + PIECES.index(piece)) for piece in path.split()]


def coordinate(value: float) -> Token:
    return Token(5, (0,), (value,))


def size(width: float, height: float) -> Token:
    return Token(6, (0, 0), (width, height))


BOX = [coordinate(0.5), coordinate(0.25), size(0.5, 0.75)]


def parse(tokens: list[Token]) -> dict:
    return Segment(Prompt(())).parse(Generation((*tokens, Token(0)), "stop"), decode)


def test_a_box_and_a_path():
    result = parse([*BOX, *text("M 0 480 L 480 - 1 C 1000 1 480 0 0 480 Z")])
    assert result == {
        "path": "M 0 0.5 L 0.5 -0.001 C 1.042 0.001 0.5 0 0 0.5 Z",
        "bbox": {"x_min": 0.25, "y_min": 0.0, "x_max": 0.75, "y_max": 0.625},
    }


def test_numbers_repeat_a_command_and_arcs_keep_their_flags():
    assert parse([*BOX, *text("m 0 0 480 1 h -96 480 A 480 480 1000 0 1 480 0 z")])["path"] == (
        "m 0 0 0.5 0.001 h -0.1 0.5 A 0.5 0.5 1000 0 1 0.5 0 z"
    )


@pytest.mark.parametrize(
    ("path", "kept", "fault"),
    [
        ("", "", "no path"),
        ("L 0 0", "", "begins with L"),
        ("0 0", "", "belongs to no command"),
        ("M 0 0 Z 1", "M 0 0 Z", "belongs to no command"),
        ("M 0 0 L 1 L 0 0", "M 0 0", "L takes 2 numbers, 1 were left"),
        ("M 0 0 L", "M 0 0", "L takes 2 numbers, 0 were left"),
        ("M 0 0 L 1 1 0", "M 0 0 L 0.001 0.001", "1 were left"),
        ("M 0 0 - Z", "M 0 0", "a minus before 'Z'"),
        ("M 0 0 x L 1 1", "M 0 0", "'x' is no part"),
        ("M 0 0 ſ", "M 0 0", "'ſ' is no part"),
        ("M 0 ²", "", "'²' is no part"),
        ("M 0 7.5", "M 0 0.007", "'.' is no part"),
    ],
)
def test_a_broken_path_keeps_what_came_before_the_fault(path, kept, fault):
    result = parse([*BOX, *text(path)])
    assert result["path"] == kept and result["bbox"] is not None
    assert fault in result["parse_error"]


@pytest.mark.parametrize("box", [[], BOX[:2], [BOX[0], BOX[2]], [BOX[2], *BOX[:2]]])
def test_without_a_box(box):
    result = parse([*box, *text("M 0 0 Z")])
    assert result["bbox"] is None and result["path"] == "M 0 0 Z" and "no box" in result["parse_error"]


def test_the_first_box_counts_and_reserved_ids_are_no_text():
    more = [*BOX, Token(3), *text("M 0 0"), Token(20), coordinate(0.1), coordinate(0.1), size(1.0, 1.0)]
    assert parse(more) == {"path": "M 0 0", "bbox": parse([*BOX, *text("M 0 0")])["bbox"]}


tokens = st.one_of(
    st.integers(0, FIRST + len(PIECES) - 1).filter(lambda i: i not in (5, 6)).map(Token),
    st.floats(0, 1).map(coordinate),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda wh: size(*wh)),
)


@given(st.lists(tokens, max_size=60))
def test_whatever_was_generated_gives_a_result_and_the_events_add_up_to_it(generated):
    outline = Outline(decode)
    events = [event for token in generated for event in outline.push(token)]
    result = outline.result()
    assert "".join(event.get("chunk", "") for event in events) == result["path"]
    assert [event["bbox"] for event in events if "bbox" in event] == [b for b in [result["bbox"]] if b]
    assert all(re.fullmatch(r"[MLHVCSQTAZmlhvcsqtaz]|-?\d+(\.\d{1,3})?", part) for part in result["path"].split())
    if "parse_error" not in result:
        assert result["path"][0] in "Mm" and result["bbox"]
    for corner in (result["bbox"] or {}).values():
        assert 0 <= corner <= 1


def test_only_a_family_with_the_template_has_the_grammar():
    assert "segment" not in registry.grammars(named_config("moondream2").tokenizer)
    grammar = registry.grammars(named_config("moondream3").tokenizer)["segment"]
    (state,) = grammar.states.values()
    assert state.reads and state.allow is None and not state.suppress and state.stop == {0}
