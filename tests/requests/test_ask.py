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
        ({"adapter": "cats"}, NotImplementedError, "adapters are not supported yet: adapter must be None"),
    ],
)
def test_what_is_refused_says_why(given, error, fault):
    with pytest.raises(error, match=fault):
        Ask("caption", **given)


def test_asks_that_say_the_same_are_equal():
    ask = Ask("detect", {"object": "car"}, {"max_objects": 3}, deadline=5, priority=1)
    assert ask == Ask("detect", {"object": "car"}, {"max_objects": 3}, 5.0, 1) and ask.adapter is None
