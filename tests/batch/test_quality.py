"""What counts as an odd text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.quality import FLAGS, WARNINGS, blank, flags, loops, repeats

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
    "a cat a cat a cat",
    "A cat. A cat. A cat. A cat.",
    "gate 1, gate 1, gate 1, gate 1",
    "0 0 0 0 0 0 0 0 0 0",
    "1, 1, 1, 1, 1, 1, 1, 1",
    "0" * 100,
    "3.14141414141414141414141414141414141414141414141414",
    "!" * 8,
    "." * 100,
    "_" * 80,
    "-=-" * 40,
    "!\n" * 30,
    "\ufffd" * 40,
    "\U0001f408" * 20,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 20,
    "\u0301" * 50,
    "A cat on a mat" + "!" * 300,
    "A cat on a mat " + "1 2 " * 300,
    "\u200b!\u200b" * 30,
    "ha\u200bhaha" * 6,
    "猫" * 30,
    "。" * 30,
    "这是一只可爱的小猫咪。" * 3,
    "แมวน่ารัก" * 3,
    "बिल्ली बैठी है, बिल्ली बैठी है, बिल्ली बैठी है",
    "고양이가 앉아 있다. " * 3,
)
NOT_REPEATING = (
    "",
    "one",
    "no no no",
    "a red car, a blue car, a green car, a white car, a black car",
    "very, very tall; a dog and a dog",
    "..................... ---- ---- ---- ----",
    "| | | | | |",
    "word1 word2 word3 word4 word5 word6",
    "10000000000000 grams",
    "一只猫和一只狗和一只鸟",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
    "gate 1, gate 2, gate 3, gate 4, gate 5, gate 6, gate 7, gate 8, gate 9",
    "Player 1 scores, player 2 scores, player 3 scores, player 4 scores",
    "x = 1, y = 1, z = 1",
    "- milk\n- bread\n- eggs\n- tea\n- rice\n- beans\n- salt\n- oil\n- soap",
    "| a | b |\n|---|---|\n| yes | no |\n| yes | no |\n| no | yes |",
    "+" + "------+" * 9 + "\n| name | size | cost | tax | sum | date | by | to | at |",
    "Chapter 1 ........................................ 5\nChapter 2 ........................................ 17",
    "Name: ____________________ Date: ____________________",
    "again and again and again",
    "bye bye, ha ha ha!",
    "GOAL!!!!!!!!",
    "Rated \u2605\u2605\u2605\u2605\u2605",
    "So funny \U0001f602\U0001f602\U0001f602\U0001f602\U0001f602",
    "The serial number is 0000000000000001.",
    "00000000",
    "0.3333333333333333",
    "#ffffff",
    "१ २ ३ ४ ५",
    "का की के को कि",
    "3 x 3 x 3",
    "10 cm by 10 cm by 10 cm",
    "ドキドキ",
    "caf\ufffd",
    "1234-5678-1234-5678",
    "https://a.example/b/c/b/c",
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


MANY = st.lists(st.text("bcdfghjklm", min_size=2, max_size=6), min_size=16, max_size=120, unique=True)


@given(MANY, st.lists(st.text("xyz", min_size=1, max_size=5), max_size=10, unique=True), st.integers(0, 15))
def test_where_a_text_is_cut_off_two_copies_of_many_words_are_enough(unit, before, more):
    text = " ".join([*before, *unit * 2, *unit[:more]])
    assert loops({"caption": text}, "length") and not loops({"caption": text}, "stop")
    assert not loops({"caption": " ".join([*before, *unit])}, "length")
    assert not loops({"caption": " ".join([*unit[:15] * 2])}, "length")


@pytest.mark.parametrize(
    "result, finish, wanted",
    [
        ({"answer": "", "reasoning": {"text": "so it goes, " * 4, "grounding": []}}, "length", True),
        ({"answer": "A cat.", "reasoning": {"text": "so it goes, " * 4, "grounding": []}}, "stop", False),
        ({"answer": "", "reasoning": {"text": 3}}, "length", False),
        ({"objects": [{"x_min": 0.1}] * 9}, "length", False),
    ],
)
def test_reasoning_counts_where_it_is_cut_off_and_places_never_do(result, finish, wanted):
    assert loops(result, finish) is wanted
    found = "repeated" in flags([{"task": "query", **result, "finish_reason": finish}])
    assert found is wanted


UNITS = st.one_of(
    st.text("!?.,;:_-=*#~^%&@$|/\\\\<>()[]{}\"'\ufffd\u2026\u3002\uff01\U0001f408\u2605", min_size=1, max_size=8),
    st.lists(st.integers(0, 99), min_size=1, max_size=4).map(lambda found: " ".join(map(str, found)) + " "),
    st.text("0123456789", min_size=1, max_size=4),
    st.text("猫犬鳥魚花", min_size=1, max_size=8),
    st.text("abcdefghij", min_size=1, max_size=8),
    DISTINCT.map(lambda words: " ".join(words) + ", "),
)
UNSEEN = st.text(
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u2800\u3164\ufe0f\x00\x1f\x7f \n\t\u3000\u2028\U000e0041", max_size=60
)


@given(UNITS, st.text("\u200b\u200c\u2060\ufeff\u00ad\u3164", max_size=3))
def test_a_text_that_is_nothing_but_a_loop_repeats_itself(unit, unseen):
    assert repeats(unseen.join([unit] * 60))
    assert flags([{"task": "caption", "caption": unit * 60}]) == ("repeated",)


@given(UNSEEN)
def test_a_text_in_which_nothing_can_be_seen_is_empty(text):
    assert flags([{"task": "query", "answer": text}]) == ("empty",)
    assert blank(text) and not blank(text + "a")


WORDS = st.lists(st.text("abcdefghijklmnopqrstuvwxyzäöü", min_size=1, max_size=9), min_size=2, max_size=40, unique=True)


@given(WORDS, st.sampled_from([" ", ", ", ". ", "\n- ", " | ", "; ", "!\n", "... ", " (1) "]))
def test_honest_lists_and_sentences_do_not_repeat_themselves(words, between):
    assert not repeats(between.join(word for word in words if len(set(word)) > 1 or len(word) < 4))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60, unique=True), st.sampled_from([", ", " ", "\n", "; "]))
def test_numbers_that_differ_do_not_repeat(numbers, between):
    assert not repeats(between.join(map(str, numbers)))
    assert not repeats(between.join(f"row {number}" for number in numbers))


@given(st.integers(2, 6), st.integers(2, 6), st.data())
def test_tables_do_not_repeat(columns, rows, data):
    cells = data.draw(
        st.lists(
            st.text("abcdefgh0123456789", min_size=1, max_size=6),
            min_size=columns * rows,
            max_size=columns * rows,
            unique=True,
        )
    )
    border = "+" + "--------+" * columns
    lines = [border]
    for row in range(rows):
        lines += ["|" + "|".join(f"{cell:^8}" for cell in cells[row * columns : (row + 1) * columns]) + "|", border]
    assert not repeats("\n".join(lines))


def test_flags():
    fine = {"task": "caption", "caption": "a dog", "finish_reason": "stop"}
    assert flags([fine]) == ()
    assert flags([]) == ()
    assert flags([fine | {"finish_reason": "length"}]) == ("cut-off",)
    assert flags([fine, {"task": "query", "question": "Why?", "answer": " \n"}]) == ("empty",)
    assert flags([{"task": "detect", "object": "dog", "objects": []}]) == ()
    assert flags([fine | {"caption": "no no no no", "finish_reason": "length"}]) == ("cut-off", "repeated")
    assert set(WARNINGS) == set(FLAGS)
