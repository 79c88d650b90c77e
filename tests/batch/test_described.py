"""What a journal says of a caption tells it from every other, and which fields its results have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.exports.lines import names_of
from jaxphoton.batch.questions import Question, parse_questions

LENGTHS = st.sampled_from(["short", "normal", "any", "very-long", "20", "1000"])
KEYS = st.sampled_from(["danbooru", "art-critic", "no-text", "name"])
NAMES = st.none() | st.sampled_from(["Ann", "a', name 'b", "x)", "\n"]) | st.text(min_size=1)
TYPED = st.builds(
    lambda length, type, extra, name: Question("caption", length=length, type=type, extra=extra, name=name),
    LENGTHS,
    st.none() | KEYS,
    st.lists(KEYS, max_size=3).map(tuple),
    NAMES,
)
TEXTS = st.text(min_size=1) | TYPED.map(lambda question: question.description().removeprefix("caption:"))
QUESTIONS = TYPED | TEXTS.map(lambda text: Question("caption", text))


@given(QUESTIONS, QUESTIONS)
def test_two_questions_are_told_alike_only_if_they_are_alike(one, other):
    assert (one.description() == other.description()) == (one == other)


@given(QUESTIONS)
def test_the_fields_of_its_results_can_be_told(question):
    asked = ("prompt",) if question.text else ("length", "type") if question.type else ("length",)
    assert names_of(question.description()) == (*asked, "caption")


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (Question("caption"), "caption:normal"),  # as in journals from before there were types
        (Question("caption", length="short"), "caption:short"),
        (Question("caption", "Describe it (briefly)."), "caption:Describe it (briefly)."),
        (Question("caption", "short"), "caption:'short'"),
        (
            Question("caption", type="Danbooru", extra=("No text", "lighting", "no-text"), name="Ann"),
            "caption:normal (type danbooru, extra no-text lighting, name 'Ann')",
        ),
    ],
)
def test_in_words(question, told):
    assert question.description() == told


def test_tasks_may_name_lengths_and_types():
    default = {"caption": Question("caption", length="50", extra=("pg",), name="Ann")}
    found = parse_questions("caption,caption:danbooru,caption:very-long,caption:Art Critic,detect:cat", default)
    assert [(each.kind, each.length, each.type) for each in found] == [
        ("caption", "50", None),
        ("caption", "50", "danbooru"),
        ("caption", "very-long", None),
        ("caption", "50", "art-critic"),
        ("detect", "normal", None),
    ]
    assert all((each.extra, each.name) == (("pg",), "Ann") for each in found[:-1])
