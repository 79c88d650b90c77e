"""Any list of texts: the answer is one of them, byte for byte, or the list is refused by name."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaxphoton.models.moondream.config import TokenizerConfig
from tests.constraints.conftest import VOCABULARY
from tests.constraints.walks import walk

LABELS = [f"{noun} {number}" for number in range(1000) for noun in ("cat", "one", "on", "größe", "日本")]
ODD = [
    *("\x7f", "\x00", "\x01a", "a\nb", "a\r\n", "\t", " ", "\u2028", "\ufeff", "\ufffd", "\U0010ffff"),
    *('"', '"quoted"', "'", "back\\slash", "\\n", "/sl/a/sh/", "(?i)", "[a", "a|b", "{2}", "^$.*+?", "#", "%json {}"),
    *("😀", "👩\u200d👩\u200d👧", "é", "e\u0301", "ﬁ", "K", "ſ", "ß"),
    *("one", "one more", "one more time", " one", "one ", "<|endoftext|>", "<|md_reserved_3|>"),
]


def drawn(grammars, tokenizer, choices, seeds, **how) -> set[str]:
    make = grammars.compile({"choices": choices}, False)
    return {tokenizer.decode(walk(make(), VOCABULARY + 12, seed, **how)) for seed in seeds}


def test_one_of_five_thousand_choices(grammars, json_tokenizer):
    answers = drawn(grammars, json_tokenizer, LABELS, range(100))
    assert answers <= set(LABELS) and len(answers) > 50


@pytest.mark.parametrize("choice", ODD, ids=ascii)
def test_an_odd_text_is_written_byte_for_byte(grammars, json_tokenizer, choice):
    assert drawn(grammars, json_tokenizer, [choice], range(5)) == {choice}


def test_all_odd_texts_side_by_side_can_be_reached(grammars, json_tokenizer):
    assert drawn(grammars, json_tokenizer, ODD, range(1500)) == set(ODD)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(0))
@example(["a", "a", "ab", "b"], 1)
def test_any_texts(grammars, json_tokenizer, choices, seed):
    assert drawn(grammars, json_tokenizer, choices, range(seed, seed + 4)) <= set(choices)


@pytest.mark.parametrize("kind", [tuple, set, frozenset, lambda c: dict.fromkeys(c).keys(), lambda c: {c[0]: 1}.keys()])
def test_any_collection_that_can_be_read_twice(grammars, json_tokenizer, kind):
    assert drawn(grammars, json_tokenizer, kind(["yes"]), range(2)) == {"yes"}


@pytest.mark.parametrize(
    ("choices", "error"),
    [
        ("yes", TypeError),
        (b"yes", TypeError),
        ((c for c in ["yes"]), TypeError),
        (iter(["yes"]), TypeError),
        ({"yes": 1}, TypeError),
        (7, TypeError),
        (float("nan"), TypeError),
        (True, TypeError),
        (False, TypeError),
        (["yes", 1], TypeError),
        (["yes", float("nan")], TypeError),
        (["yes", None], TypeError),
        (["yes", ["no"]], TypeError),
        (["x" * 10**6, 1], TypeError),
        ([], ValueError),
        (set(), ValueError),
        ([""], ValueError),
        (["yes", ""], ValueError),
        (["yes", "\ud800"], ValueError),
        (["\ude00\ud83d"], ValueError),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", ascii(value))[:40],
)
def test_what_cannot_be_chosen_from_is_an_error_that_names_the_setting(grammars, choices, error):
    with pytest.raises(error, match="^setting choices ") as caught:
        grammars.compile({"choices": choices}, False)
    assert len(str(caught.value)) < 300


def test_reasoning_does_not_end_the_answer_before_it_began(grammars, json_tokenizer):
    constraint = grammars.compile({"choices": ["yes"]}, True)()
    chance = random.Random(1)
    for _ in range(20):
        assert not int(constraint.mask()[0]) & 1  # id 0 ends a sequence
        constraint.accept(chance.randrange(20, VOCABULARY))
    constraint.accept(TokenizerConfig().answer_id)
    assert json_tokenizer.decode(walk(constraint, VOCABULARY + 12, 1)) == "yes"
