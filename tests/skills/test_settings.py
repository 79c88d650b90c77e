from __future__ import annotations

import numpy as np
import pytest

from jaxphoton.skills.settings import Settings


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
        ({"temperature": -0.1}, ValueError, "temperature must be from 0 to 1000, got -0.1"),
        ({"temperature": float("nan")}, ValueError, "temperature"),
        ({"temperature": float("inf")}, ValueError, "temperature"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number"),
        ({"temperature": True}, TypeError, "temperature must be a number"),
        ({"top_p": 0}, ValueError, "top_p must be above 0"),
        ({"top_p": 1.5}, ValueError, "top_p"),
        ({"max_tokens": 0}, ValueError, "max_tokens must be 1 or more"),
        ({"max_tokens": 2.5}, TypeError, "max_tokens must be an integer"),
        ({"max_objects": 0}, ValueError, "max_objects"),
        ({"seed": -1}, ValueError, "seed must be between 0 and"),
        ({"seed": 2**32}, ValueError, "seed"),
        ({"adapter": "x@1"}, NotImplementedError, "adapters are not supported yet"),
    ],
)
def test_bad_settings_say_what_is_allowed(given, error, fault):
    with pytest.raises(error, match=fault):
        parse(**given)


def test_settings_must_be_a_mapping():
    with pytest.raises(TypeError, match="mapping"):
        Settings.parse([("temperature", 1)], Settings())  # type: ignore[arg-type]
