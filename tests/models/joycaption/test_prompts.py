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


@pytest.mark.parametrize(
    ("skill", "arguments", "fault"),
    [
        ("detect", {"object": "cat"}, "no prompt for 'detect'; it has: caption, query"),
        ("caption", {"length": "huge"}, "length must be one of any, very-short, short"),
        ("query", {"question": "?", "reasoning": True}, "does not reason"),
        ("query", {"question": "?", "spatial_refs": [(0.1, 0.2)]}, "spatial_refs"),
    ],
)
def test_what_the_model_cannot_be_asked_is_said(family, skill, arguments, fault):
    with pytest.raises(ValueError, match=fault):
        family.skills().form(skill, arguments)


def test_more_pictures_are_refused(family, encode):
    with pytest.raises(ValueError, match="one picture"):
        family.segments(prompt(family.ids, encode, [COLOUR]), CROPS, [CROPS])
