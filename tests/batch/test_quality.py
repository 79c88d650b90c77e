"""What counts as an odd text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.quality import FLAGS, WARNINGS, flags, repeats

REPEATING = (
    "no no no no",
    "The image shows a dog. The image shows a dog. The image shows a dog. The image",
    "A sign: a RED car, a red car; a red car",
    "1. a man in a suit 2. a man in a suit 3. a man in a suit",
    "on and on and on and on and on",
    "so funny hahahahahahahahahahaha",
    "aaaaaaaaaaaa",
    "一只猫一只猫一只猫",
    "long before it starts, it goes: la la la la",
)
NOT_REPEATING = (
    "",
    "one",
    "no no no",
    "a red car, a blue car, a green car, a white car, a black car",
    "very, very tall; a dog and a dog",
    "0 0 0 0 0 0 0 0 0 0",
    "..................... ---- ---- ---- ----",
    "| | | | | |",
    "word1 word2 word3 word4 word5 word6",
    "10000000000000 grams",
    "一只猫和一只狗和一只鸟",
)


@pytest.mark.parametrize("text", REPEATING)
def test_repeats(text):
    assert repeats(text)


@pytest.mark.parametrize("text", NOT_REPEATING)
def test_does_not_repeat(text):
    assert not repeats(text)


DISTINCT = st.lists(st.text("bcdfg", min_size=2, max_size=6), min_size=3, max_size=32, unique=True)


@given(DISTINCT, st.lists(st.text("xyz", min_size=1, max_size=5), max_size=10))
def test_three_in_a_row_are_found_anywhere(unit, around):
    words = [*around[:5], *unit * 3, *around[5:]]
    assert repeats(" ".join(words))


@given(DISTINCT)
def test_two_in_a_row_are_not_enough(unit):
    assert not repeats(" ".join(unit * 2))


def test_flags():
    fine = {"task": "caption", "caption": "a dog", "finish_reason": "stop"}
    assert flags([fine]) == ()
    assert flags([]) == ()
    assert flags([fine | {"finish_reason": "length"}]) == ("cut-off",)
    assert flags([fine, {"task": "query", "question": "Why?", "answer": " \n"}]) == ("empty",)
    assert flags([{"task": "detect", "object": "dog", "objects": []}]) == ()
    assert flags([fine | {"caption": "no no no no", "finish_reason": "length"}]) == ("cut-off", "repeated")
    assert set(WARNINGS) == set(FLAGS)
