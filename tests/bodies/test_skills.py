"""Bodies of the skills, and the shapes of their answers."""

from __future__ import annotations

import math

import msgspec
import pytest

from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.skills import answer_of, answer_type, body_type, parsed
from jaxphoton.requests.answer import Result
from jaxphoton.requests.skills import SKILLS

NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "data, param",
    [
        (b"", None),
        (b"[]", None),
        (b"\xef\xbb\xbf{}", None),
        (b'{"image_url": "\xff"}', None),
        (b'{"image_url": "AAAA", "settings": {"a": ' + NESTED + b"}}", None),
        (b'{"image_url": "AAAA", "unknown": ' + NESTED + b"}", None),
        (b'{"length": "short"}', "image_url"),
        (b'{"image_url": 1}', "image_url"),
        (b'{"image_url": "AAAA", "length": "tall"}', "length"),
        (b'{"image_url": "AAAA", "extra": "pg"}', "extra"),
        (b'{"image_url": "AAAA", "type": 1}', "type"),
        (b'{"image_url": "AAAA", "timeout": -1}', "timeout"),
        (b'{"image_url": "AAAA", "timeout": 1e999}', "timeout"),
        (b'{"image_url": "AAAA", "priority": 1.5}', "priority"),
    ],
)
def test_what_is_wrong_is_named(data, param):
    with pytest.raises(BodyError) as wrong:
        parsed("caption", data)
    assert (wrong.value.status, wrong.value.param) == (400, param)


def test_a_caption_may_have_a_type_options_and_a_number_of_words():
    body = b'{"image_url": "AAAA", "length": 50, "type": "danbooru", "extra": ["pg"], "name": "Ann"}'
    assert dict(parsed("caption", body).ask.arguments) == {
        "length": 50,
        "type": "danbooru",
        "extra": ["pg"],
        "name": "Ann",
    }
    body = b'{"image_url": "AAAA", "type": null, "extra": null, "name": null}'
    assert dict(parsed("caption", body).ask.arguments) == {"length": "normal"}


def test_null_is_the_same_as_nothing_and_unknown_keys_are_passed_over():
    body = b'{"question": "?", "stream": null, "model": null, "priority": null, "reasoning": null, "other": {}}'
    found = parsed("query", body)
    assert dict(found.ask.arguments) == {"question": "?"}
    assert (found.stream, found.model, found.ask.priority, found.ask.deadline) == (False, None, 0, None)


@pytest.mark.parametrize("skill", list(SKILLS))
def test_every_skill_has_a_form_for_its_body_and_its_answer(skill):
    fields = {each.name for each in msgspec.structs.fields(body_type(skill))}
    assert {each.name for each in SKILLS[skill].arguments} < fields
    answer = answer_of(Result({each.name: each.kind.nothing for each in SKILLS[skill].fields}), "1")
    msgspec.convert(answer, answer_type(skill))


def test_what_is_no_number_is_null():
    answer = answer_of(Result(points=[{"x": math.nan, "y": math.inf}]), "1")
    found = msgspec.json.decode(msgspec.json.encode(answer), type=answer_type("point"))
    assert msgspec.to_builtins(found)["points"] == [{"x": None, "y": None}]
