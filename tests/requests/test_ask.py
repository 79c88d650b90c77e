"""What an ask may hold besides what its skill takes."""

from __future__ import annotations

import math

import pytest

from jaxphoton import Ask


@pytest.mark.parametrize(
    ("given", "error", "fault"),
    [
        ({"deadline": "soon"}, TypeError, "deadline must be a number of seconds or None, not str"),
        ({"deadline": True}, TypeError, "deadline must be a number of seconds or None, not bool"),
        ({"deadline": math.nan}, ValueError, "the deadline is not a number"),
        ({"deadline": 10**400}, ValueError, "the deadline is too large a number"),
        ({"arguments": None}, TypeError, "the arguments must be a mapping, not NoneType"),
        ({"priority": 1.5}, TypeError, "the priority must be an int, not float"),
        ({"adapter": 3}, TypeError, "adapter must be the name of an adapter, not 3"),
        ({"adapter": ""}, ValueError, "adapter must be the name of an adapter, and is empty"),
        ({"settings": {"variant": ["cats"]}}, TypeError, "setting variant must be the name of an adapter"),
        (
            {"adapter": "cats", "settings": {"variant": "dogs"}},
            ValueError,
            "one adapter, and here are adapter 'cats' and setting variant 'dogs'",
        ),
        (
            {"settings": {"adapter": "cats", "variant": "dogs"}},
            ValueError,
            "one adapter, and here are setting adapter 'cats' and setting variant 'dogs'",
        ),
    ],
)
def test_what_is_refused_says_why(given, error, fault):
    with pytest.raises(error, match=fault):
        Ask("caption", **given)


def test_asks_that_say_the_same_are_equal():
    ask = Ask("detect", {"object": "car"}, {"max_objects": 3}, deadline=5, priority=1)
    assert ask == Ask("detect", {"object": "car"}, {"max_objects": 3}, 5.0, 1) and ask.adapter is None


@pytest.mark.parametrize(
    "given",
    [
        {"adapter": "cats", "settings": {"seed": 1}},
        {"settings": {"adapter": "cats", "seed": 1}},
        {"settings": {"variant": "cats", "seed": 1}},
        {"adapter": "cats", "settings": {"variant": "cats", "adapter": None, "seed": 1}},
    ],
)
def test_an_adapter_is_named_in_three_ways(given):
    assert Ask("caption", **given) == Ask("caption", {}, {"seed": 1}, adapter="cats")


def test_settings_that_name_none_stay_as_they_are():
    settings = {"seed": 1}
    assert Ask("caption", {}, settings).settings is settings
    assert Ask("caption", {}, {"adapter": None}) == Ask("caption", {}, {})
