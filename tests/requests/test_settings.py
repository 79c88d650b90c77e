from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from jaxphoton.requests.settings import RANGES, Settings


def parse(**given) -> Settings:
    return Settings.parse(given, Settings())


def test_what_is_not_given_comes_from_the_defaults():
    assert Settings.parse(None, Settings()) == Settings(0.2, 0.9, 768, 50, None)
    assert parse(temperature=0, max_tokens=None) == Settings(temperature=0)


def test_numpy_numbers_are_numbers():
    assert parse(max_tokens=np.int64(5), temperature=np.float32(0.5)).max_tokens == 5


@pytest.mark.parametrize(
    ("given", "error", "fault"),
    [
        ({"temprature": 1}, ValueError, "unknown settings temprature; allowed are temperature, top_p"),
        ({"temperature": -0.1}, ValueError, "temperature must be a number from 0 to 1000, got -0.1"),
        ({"temperature": float("nan")}, ValueError, "temperature"),
        ({"temperature": float("inf")}, ValueError, "temperature"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number"),
        ({"temperature": True}, TypeError, "temperature must be a number"),
        ({"top_p": 0}, ValueError, "top_p must be a number above 0"),
        ({"top_p": 1.5}, ValueError, "top_p"),
        ({"max_tokens": 0}, ValueError, "max_tokens must be an integer, 1 or more"),
        ({"max_tokens": 2.5}, TypeError, "max_tokens must be an integer"),
        ({"max_objects": 0}, ValueError, "max_objects"),
        ({"seed": -1}, ValueError, "seed must be an integer from 0 to"),
        ({"seed": 2**32}, ValueError, "seed"),
        ({"adapter": "x@1"}, ValueError, "unknown settings adapter; allowed are"),
    ],
)
def test_bad_settings_say_what_is_allowed(given, error, fault):
    with pytest.raises(error, match=fault):
        parse(**given)


WRONG = [
    True,
    False,
    "1",
    "",
    b"1",
    [1],
    {},
    (),
    object(),
    1j,
    float("nan"),
    np.bool_(True),
    np.array([1, 2]),
    Decimal(1),
]
HUGE = [10**400, 10**6000, -(10**6000), float("inf"), float("-inf"), np.float64("nan"), np.float32("inf"), 2**64]


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [*WRONG, *HUGE, "x" * 10**6, [0] * 10**6], ids=lambda value: type(value).__name__)
def test_every_wrong_kind_is_one_short_error_with_setting_value_and_range(name, value):
    unbounded = name in ("max_tokens", "max_objects") and isinstance(value, int) and not isinstance(value, bool)
    if unbounded and value > 0:
        assert getattr(parse(**{name: value}), name) == value
        return
    with pytest.raises(
        (TypeError, ValueError), match=f"^setting {name} must be an? .*(from|above|more).*, got "
    ) as caught:
        parse(**{name: value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", RANGES)
def test_numbers_of_any_kind_become_pythons(name):
    for value in (1, np.uint8(1), Fraction(1), np.float16(1), 1.0):
        if RANGES[name][0] is float or isinstance(value, (int, np.integer)):
            assert type(getattr(parse(**{name: value}), name)) is RANGES[name][0]


def test_many_long_unknown_settings_are_a_short_error():
    with pytest.raises(ValueError, match="unknown settings x") as caught:
        parse(**{"x" * 10**5 + str(number): 1 for number in range(99)})
    assert len(str(caught.value)) < 500


def test_settings_must_be_a_mapping():
    with pytest.raises(TypeError, match="mapping"):
        Settings.parse([("temperature", 1)], Settings())  # type: ignore[arg-type]
