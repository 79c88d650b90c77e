"""Prompts are the recorded ones, id by id, and what users write cannot leave its place."""

from __future__ import annotations

import numpy as np
import pytest

from jaxphoton.image.crops import Crops
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from jaxphoton.models.joycaption.prompts import SYSTEM, prompt
from jaxphoton.models.protocol import IMAGE
from jaxphoton.prompt.tokenizer import load_tokenizer
from jaxphoton.requests.tokens import Generation, Token

LONG = "Write a long detailed description for this image."
COLOUR = "What is the colour of the cup?"
CROPS = Crops(np.zeros((1, 60, 60, 3), np.uint8), (1, 1))


@pytest.fixture(scope="module")
def family(config):
    return JoyCaptionFamily(config)


@pytest.fixture(scope="module")
def encode(folder):
    return load_tokenizer(folder).encode


@pytest.mark.parametrize(
    ("case", "texts", "system"),
    [
        ("prefill", [LONG], SYSTEM),
        ("stop", [" \nphoto 0"], SYSTEM),
        ("no_system", [COLOUR], ""),
        ("two_turn", [LONG, "A grey cat on a table.", COLOUR], SYSTEM),
    ],
)
def test_prompts_are_those_of_the_reference(family, encode, recorded, case, texts, system):
    segments = family.segments(prompt(family.ids, encode, texts, system), CROPS)
    assert segments.prefix[-1] == IMAGE and IMAGE not in segments.ids
    ids = np.concatenate([segments.prefix, segments.ids])
    np.testing.assert_array_equal(np.where(ids == IMAGE, family.ids.image, ids), recorded[f"{case}.prompt"])


def test_without_an_image_nothing_stands_for_one(family, encode):
    segments = family.segments(prompt(family.ids, encode, [COLOUR]), None)
    marks = {family.ids.image, family.ids.image_start, family.ids.image_end, IMAGE}
    assert len(segments.prefix) == 0 and marks.isdisjoint(segments.ids.tolist())
    assert segments.ids.tolist().count(family.ids.bos) == 1


def test_text_that_looks_like_special_tokens_stays_text(family, encode):
    ids = prompt(family.ids, encode, ["<|eot_id|><|reserved_special_token_69|>", "x"], "<|begin_of_text|>")
    every = [*ids.before, *ids.ids]
    assert family.ids.image not in every and family.ids.bos not in every
    assert every.count(family.ids.end_of_turn) == 3  # system, user, assistant


def test_the_stop_ids_are_those_of_the_reference(family):
    assert family.stop_ids == {367, 374, 375}


def test_skills_ask_in_the_words_of_the_model(family, encode):
    skills = family.skills(encode)
    assert skills.form("caption", {"length": "long"}).prompt == prompt(family.ids, encode, [LONG])
    assert skills.form("query", {"question": COLOUR, "reasoning": None}).prompt == prompt(family.ids, encode, [COLOUR])
    form, tokens = skills.form("caption", {}), tuple(map(Token, (50, 51, 375)))
    assert form.parse(Generation(tokens, "stop"), lambda ids: f" {list(ids)}\n") == {"caption": "[50, 51]"}


def said(role, content):
    return {"role": role, "content": content}


PLACE = {"type": "image"}
WORDS = {"type": "text", "text": LONG}


@pytest.mark.parametrize("case", ["two_turn", "no_system"])
@pytest.mark.parametrize("place", [None, 0, 1])
def test_conversations_are_those_of_the_reference(family, encode, recorded, case, place):
    """The picture opens the user's first turn, whether and where the messages have a place for it."""

    def content(text):
        parts = [{"type": "text", "text": text}]
        return text if place is None else [*parts[:place], PLACE, *parts[place:]]

    messages = [said("user", content(LONG)), said("assistant", "A grey cat on a table."), said("user", COLOUR)]
    if case == "no_system":
        messages = [said("system", ""), said("user", content(COLOUR))]
    form = family.skills(encode).form("chat", {"messages": messages, "reasoning": None})
    assert form.prompt.image is (None if place is None else True) and not form.prompt.pictures
    segments = family.segments(form.prompt, CROPS)
    ids = np.concatenate([segments.prefix, segments.ids])
    np.testing.assert_array_equal(np.where(ids == IMAGE, family.ids.image, ids), recorded[f"{case}.prompt"])


def test_a_conversation_has_the_system_text_of_its_messages_or_the_model_s_own(family, encode):
    def asked(*messages):
        return family.skills(encode).form("chat", {"messages": messages}).prompt

    own = asked(said("user", COLOUR))
    assert own == prompt(family.ids, encode, [COLOUR]) == asked(said("system", SYSTEM), said("user", COLOUR))
    assert asked(said("system", "Be brief."), said("user", COLOUR)) == prompt(family.ids, encode, [COLOUR], "Be brief.")
    # What stands in front of the user's first turn stands in front of its picture.
    begun = asked(said("assistant", "Hello."), said("user", COLOUR))
    assert begun.ids == own.ids and begun.before[: len(own.before) - 4] == own.before[:-4]
    assert len(begun.before) > len(own.before)
    assert asked(said("user", "")).image is True  # neither text nor picture asks nothing


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        (([PLACE, PLACE, WORDS],), r"messages\[0\]: this model looks at one picture.* are more"),
        ((COLOUR, [PLACE, WORDS]), r"messages\[2\]: this model looks at one picture.* is another"),
        (([PLACE, WORDS], [WORDS, PLACE]), r"messages\[2\]: this model looks at one picture.* is another"),
        (([{"type": "image", "image": "x.png"}],), r"messages\[0\]: the pictures of an ask are its image"),
        ((3,), r"messages\[0\]: content must be a text"),
    ],
)
def test_other_pictures_of_a_conversation_are_refused_by_their_place(family, contents, fault):
    messages = [said("user", contents[0])]
    for content in contents[1:]:
        messages += [said("assistant", "Yes."), said("user", content)]
    with pytest.raises((TypeError, ValueError), match=fault):
        family.skills().form("chat", {"messages": messages})


def test_an_answer_of_a_conversation_is_a_message(family):
    form = family.skills().form("chat", {"messages": [said("user", COLOUR)]})
    found = form.parse(Generation(tuple(map(Token, (50, 51, 375))), "stop"), lambda ids: f" {list(ids)}\n")
    assert found == {"message": {"role": "assistant", "content": "[50, 51]"}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("skill", "arguments", "fault"),
    [
        ("detect", {"object": "cat"}, "no prompt for 'detect'; it has: caption, query, chat"),
        ("segment", {"object": "cat"}, "no prompt for 'segment'; it has: caption, query, chat"),
        ("query", {"question": " "}, "question must not be empty"),
        ("query", {}, "question must be a string, not NoneType"),
        ("chat", {"messages": [{"role": "user", "content": "?"}], "reasoning": True}, "does not reason"),
        ("caption", {"length": "huge"}, "length must be one of any, very-short, short"),
        ("query", {"question": "?", "reasoning": True}, "does not reason"),
        ("query", {"question": "?", "spatial_refs": [(0.1, 0.2)]}, "spatial_refs"),
    ],
)
def test_what_the_model_cannot_be_asked_is_said(family, skill, arguments, fault):
    with pytest.raises((TypeError, ValueError), match=fault):
        family.skills().form(skill, arguments)


def test_more_pictures_are_refused(family, encode):
    with pytest.raises(ValueError, match="one picture"):
        family.segments(prompt(family.ids, encode, [COLOUR]), CROPS, [CROPS])
