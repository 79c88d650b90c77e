"""What an ask is given where its settings do not say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from jaxphoton.models.joycaption.config import GenerationConfig
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from jaxphoton.models.registry import named_family
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.preparing import AskPreparer
from jaxphoton.requests.settings import Settings
from tests.models.joycaption.drawn import SMALL

WARMER = replace(SMALL, generation=GenerationConfig(temperature=0.7, top_p=0.8))
GREEDY = replace(SMALL, generation=GenerationConfig(temperature=0.0))
CONVERSATION = {"messages": [{"role": "user", "content": "Why?"}]}


def prepared(family: Any, skill: str, arguments: Any, settings: Any = None) -> Settings:
    preparer = AskPreparer(family.skills(), cast(Any, None), family, cast(Any, None))
    return preparer.prepare(Ask(skill, arguments, settings)).settings


@pytest.mark.parametrize(
    ("family", "wanted"),
    [
        (named_family("moondream2"), Settings(0.2, 0.9, 768)),
        (JoyCaptionFamily(SMALL), Settings(0.6, 0.9, 512)),
        (JoyCaptionFamily(WARMER), Settings(0.7, 0.8, 512)),
        (JoyCaptionFamily(GREEDY), Settings(0.0, 0.9, 512)),
    ],
)
def test_texts_are_generated_as_the_model_does_where_nobody_says(family, wanted):
    for skill, arguments in (("caption", {}), ("query", {"question": "Why?"}), ("chat", CONVERSATION)):
        assert prepared(family, skill, arguments) == wanted
        given = prepared(family, skill, arguments, {"temperature": 0, "seed": 3, "top_p": None})
        assert given == replace(wanted, temperature=0.0, seed=3)


def test_places_are_greedy_whatever_the_model_does():
    found = prepared(named_family("moondream2"), "detect", {"object": "cat"})
    assert (found.temperature, found.top_p, found.max_tokens) == (0.0, 1.0, 3 * 50 + 1)
