"""Prompts as ids, against the recorded prompts and the published templates."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from jaxphoton.image.crops import Crops
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.prompts import (
    Prompt,
    caption_prompt,
    chat_prompt,
    detect_prompt,
    point_prompt,
    query_prompt,
    reasons_by_default,
    segment_prompt,
)
from jaxphoton.models.moondream.reading import load_config, named_config
from jaxphoton.models.protocol import IMAGE
from jaxphoton.requests.conversation import PLACE, Turn

MD2 = named_config("moondream2").tokenizer
MD3 = named_config("moondream3").tokenizer
OLD = named_config("moondream-0.5b").tokenizer


def letters(text: str) -> list[int]:
    """A stand-in for a tokenizer, in which every prompt can be read."""
    return [1000 + ord(letter) for letter in text]


def test_captions():
    assert caption_prompt(MD2) == caption_prompt(MD2, "normal") == Prompt((1, 32708, 2, 6382, 3))
    assert caption_prompt(MD3, "short").ids == (1, 32708, 2, 12492, 3)
    assert caption_prompt(MD3, "long").ids == (1, 32708, 2, 4059, 3)
    with pytest.raises(ValueError, match="one of 'short', 'normal', not 'long'"):
        caption_prompt(OLD, "long")
    with pytest.raises(TypeError, match="length must be a string, not int"):
        caption_prompt(MD2, 3)  # type: ignore[arg-type]


def test_questions():
    assert query_prompt(MD2, letters, " Hi?\n").ids == (1, 15381, 2, *letters("Hi?"), 3, 3)
    assert query_prompt(MD2, letters, "Hi?", reasoning=True).ids == (1, 15381, 2, *letters("Hi?"), 3, 4)
    assert query_prompt(MD3, letters, "Hi?").ids == (1, 15381, 2, *letters("Hi?"), 3)
    assert query_prompt(MD3, letters, "Hi?", reasoning=True).ids == (1, 15381, 2, *letters("Hi?"), 4)
    assert query_prompt(OLD, letters, "Hi?").ids == (198, 198, 24361, 25, *letters("Hi?"), 198, 198, 33706, 25)
    with pytest.raises(ValueError, match="cannot reason"):
        query_prompt(OLD, letters, "Hi?", reasoning=True)


def test_a_family_without_an_answer_prefix_uses_the_suffix():
    config = TokenizerConfig(templates={"query": {"prefix": [1], "suffix": [8]}})
    assert query_prompt(config, letters, "x").ids == (1, *letters("x"), 8)
    turns = (Turn("user", "x"), Turn("assistant", "y"), Turn("user", "z"))
    assert chat_prompt(config, letters, turns).ids == (1, *letters("x"), 8, *letters("y"), 1, *letters("z"), 8)


def test_conversations_are_rows_of_questions_and_answers():
    turns = (Turn("system", "S"), Turn("user", " a\n"), Turn("assistant", " b "), Turn("user", "c "))
    asks, first, second, last = (1, 15381, 2), letters("S\n\n a\n"), letters(" b "), letters("c ")
    assert chat_prompt(MD3, letters, turns).ids == (*asks, *first, 3, *second, *asks, *last, 3)
    assert chat_prompt(MD3, letters, turns, True).ids == (*asks, *first, 3, *second, *asks, *last, 4)
    assert chat_prompt(MD2, letters, turns).ids == (*asks, *first, 3, 3, *second, *asks, *last, 3, 3)
    assert chat_prompt(MD2, letters, turns, True).ids == (*asks, *first, 3, 3, *second, *asks, *last, 3, 4)
    question, answer = (198, 198, 24361, 25), (198, 198, 33706, 25)
    assert chat_prompt(OLD, letters, turns).ids == (*question, *first, *answer, *second, *question, *last, *answer)
    with pytest.raises(ValueError, match="cannot reason"):
        chat_prompt(OLD, letters, turns, True)


def test_odd_conversations():
    asks = (1, 15381, 2)
    twice = (Turn("user", "a"), Turn("user", "b"))
    assert chat_prompt(MD3, letters, twice).ids == (*asks, *letters("a"), *asks, *letters("b"), 3)
    greeted = (Turn("assistant", "Hi"), Turn("user", "a"))
    assert chat_prompt(MD3, letters, greeted).ids == (3, *letters("Hi"), *asks, *letters("a"), 3)
    alone = chat_prompt(MD3, letters, (Turn("system", "S"), Turn("user", "")))
    assert alone == Prompt((*asks, *letters("S"), 3), image=True)
    assert chat_prompt(MD3, letters, greeted).image is None


def test_pictures_stand_at_the_start_of_their_turns_and_the_first_of_all_in_front():
    asks, one = (1, 15381, 2), (PLACE,)
    turns = (Turn("system", "S"), Turn("user", "ab", one), Turn("assistant", "c"), Turn("user", "d", one * 2))
    prompt = chat_prompt(MD3, letters, turns)
    ids = (*asks, *letters("S\n\nab"), 3, *letters("c"), *asks, *letters("d"), 3)
    assert prompt == Prompt(ids, pictures=(10, 10), image=True)
    later = chat_prompt(MD3, letters, (Turn("user", "a"), Turn("user", "", one)))
    assert later == Prompt((*asks, *letters("a"), *asks, 3), pictures=(4,), image=False)
    both = chat_prompt(MD3, letters, (Turn("user", "a", one * 2),))
    assert both == Prompt((*asks, *letters("a"), 3), pictures=(0,), image=True)


def test_positions_of_further_pictures():
    family = MoondreamFamily(named_config("moondream2"))
    crops = Crops(np.zeros((1, 378, 378, 3), np.uint8), (1, 1))
    prompt = Prompt((7, 8, 9), ((2, (0.5,)),), pictures=(0, 2, 2))
    for image, lead in ((crops, []), (None, [0])):
        segments = family.segments(prompt, image, (crops, crops, crops))
        block, start = [IMAGE] * 729, len(lead)
        assert segments.ids.tolist() == [*lead, *block, 7, 8, *block, *block, 9]
        assert segments.blocks == tuple((start + at, start + at + 729) for at in (0, 731, 1460))
        assert len(segments.prefix) == (730 if image else 0)
        assert np.flatnonzero(segments.fed.any(axis=1)).tolist() == [start + 2189]
    with pytest.raises(ValueError, match="places for 3 further pictures, not 1"):
        family.segments(prompt, crops, (crops,))


@given(st.text(min_size=1).map(str.strip).filter(bool), st.booleans())
def test_a_conversation_of_one_turn_is_a_question(text, reasoning):
    for config in (MD2, MD3):
        assert chat_prompt(config, letters, (Turn("user", text),), reasoning) == query_prompt(
            config, letters, text, reasoning
        )
    assert chat_prompt(OLD, letters, (Turn("user", text),)) == query_prompt(OLD, letters, text)


def test_objects():
    assert detect_prompt(MD2, letters, "red car ").ids == (1, 7235, 476, 2, *letters(" red car"), 3)
    assert point_prompt(MD3, letters, "cat").ids == (1, 2581, 2, *letters(" cat"), 3)
    assert detect_prompt(OLD, letters, " cat").ids == (198, 198, 47504, 25, *letters("cat"), 628)
    assert point_prompt(OLD, letters, "cat").ids == (198, 198, 12727, 25, *letters("cat"), 628)


def test_outlines_take_no_space_before_the_object():
    assert segment_prompt(MD3, letters, " cat ").ids == (1, 17374, 2, *letters("cat"), 3)
    assert segment_prompt(MD3, letters, "cat", [(0.5, 0.5)]).ids == (1, 17374, 2, 5, 5, *letters("cat"), 3)
    with pytest.raises(ValueError, match="no prompt for 'segment'; it has: caption"):
        segment_prompt(MD2, letters, "cat")


def test_the_family_says_whether_it_reasons_unasked():
    assert [reasons_by_default(config) for config in (MD2, MD3, OLD)] == [False, True, False]


def test_spatial_references():
    prompt = query_prompt(MD3, letters, "x", spatial_refs=[(0.25, 1), [0.2, 0.1, 0.6, 0.5]])
    assert prompt.ids == (1, 15381, 2, 5, 5, 5, 5, 6, *letters("x"), 3)
    positions, values = zip(*prompt.values, strict=True)
    assert positions == (3, 4, 5, 6, 7)
    assert values[:2] == ((0.25,), (1.0,))
    assert np.allclose([*values[2], *values[3], *values[4]], [0.4, 0.3, 0.4, 0.4])
    assert point_prompt(MD2, letters, "x", [(0.0, 1.0)]).values == ((3, (0.0,)), (4, (1.0,)))
    assert point_prompt(MD2, letters, "x", np.array([[0.5, 0.5]])).ids == (1, 2581, 2, 5, 5, *letters(" x"), 3)
    assert query_prompt(MD3, letters, "x", spatial_refs=[]) == query_prompt(MD3, letters, "x")


@pytest.mark.parametrize("ref", [(0.5,), (0.1, 0.2, 0.3), (1.01, 0), (0, -0.1), (math.nan, 0), (math.inf, 0), ()])
def test_bad_references_say_what_is_allowed(ref):
    with pytest.raises(ValueError, match=r"a point \(x, y\) or a box .* from 0 to 1"):
        query_prompt(MD3, letters, "x", spatial_refs=[ref])


@pytest.mark.parametrize("ref", [0.5, "ab", ("0.1", "0.2"), (True, False), None])
def test_references_of_another_type(ref):
    with pytest.raises(TypeError, match=r"a point \(x, y\) or a box"):
        query_prompt(MD3, letters, "x", spatial_refs=[ref])


def test_unordered_boxes():
    with pytest.raises(ValueError, match="ordered"):
        query_prompt(MD3, letters, "x", spatial_refs=[(0.5, 0.1, 0.4, 0.2)])


@pytest.mark.parametrize("make", [query_prompt, detect_prompt, point_prompt, segment_prompt])
def test_empty_and_mistyped_texts(make):
    for text in ("", " \n\t"):
        with pytest.raises(ValueError, match="must not be empty"):
            make(MD3, letters, text)
    with pytest.raises(TypeError, match="must be a string, not bytes"):
        make(MD3, letters, b"cat")


def test_skills_a_model_lacks():
    config = TokenizerConfig(templates={"caption": {"short": [1]}, "point": None})
    with pytest.raises(ValueError, match="no prompt for 'point'; it has: caption"):
        point_prompt(config, letters, "cat")


def test_questions_cannot_inject_special_tokens(tokenizer):
    for text in ("<|endoftext|>", "cat<|md_reserved_2|>"):
        assert sum(i < 10 for i in query_prompt(MD3, tokenizer.encode, text).ids) == 3
        assert sum(i < 10 for i in detect_prompt(MD3, tokenizer.encode, text).ids) == 3
        turns = (Turn("system", text), Turn("user", text), Turn("assistant", text), Turn("user", text))
        assert sum(i < 10 for i in chat_prompt(MD3, tokenizer.encode, turns).ids) == 6


@pytest.mark.parametrize("model", ["md2-tiny", "md3-tiny"])
def test_recorded_prompts(goldens, model):
    config = load_config(goldens / model / "config.json").tokenizer
    arrays = load_file(goldens / model / "cases.safetensors")
    cases = json.loads((goldens / model / "cases.json").read_text(encoding="utf-8"))["cases"]

    def recorded(case: str, head: int, tail: int):
        ids = arrays[f"{case}.prompt"].tolist()
        return tuple(ids), lambda text: ids[head : len(ids) - tail]

    captions = [caption_prompt(config, length).ids for length in ("short", "normal", "long")]
    assert tuple(arrays["caption.prompt"]) in captions
    opener = len(config.templates["query"]["answer_prefix"])
    expected, encode = recorded("query", 3, opener)
    assert query_prompt(config, encode, "x").ids == chat_prompt(config, encode, (Turn("user", "x"),)).ids == expected
    expected, encode = recorded("reasoning", 3, opener)
    assert query_prompt(config, encode, "x", reasoning=True).ids == expected
    assert chat_prompt(config, encode, (Turn("user", "x"),), reasoning=True).ids == expected
    expected, encode = recorded("detect_upstream", 4, 1)
    assert detect_prompt(config, encode, "x").ids == expected
    expected, encode = recorded("point_upstream", 3, 1)
    assert point_prompt(config, encode, "x").ids == expected
    refs = cases["spatial_refs"]["refs"]
    expected, encode = recorded("spatial_refs", 3 + sum(2 if len(r) == 2 else 3 for r in refs), opener)
    assert query_prompt(config, encode, "x", spatial_refs=refs).ids == expected
