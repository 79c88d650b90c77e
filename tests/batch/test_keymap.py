"""A dictionary that keeps no keys."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.journal.keymap import KeyMap, digest


@given(st.lists(st.tuples(st.text(max_size=2), st.integers(0, 255))))
def test_it_is_a_dictionary(pairs):
    ours, truth = KeyMap("B"), {}
    for key, value in pairs:
        ours[key] = truth[key] = value
        assert len(ours) == len(truth)
    for key in {*truth, "", "absent"}:
        assert ours.get(key) == truth.get(key) and (key in ours) == (key in truth)


def test_it_grows_and_stays_small():
    ours = KeyMap("Q")
    for number in range(20_000):
        ours[f"key {number}"] = number << 40
    assert all(ours.get(f"key {number}") == number << 40 for number in range(20_000))
    assert ours.nbytes <= 20_000 * 48


def test_digests_are_the_same_everywhere_and_take_any_file_name():
    assert digest("a/b.jpg") == 12595617411906399591
    assert digest(os.fsdecode(b"caf\xe9.png")) != digest(os.fsdecode(b"caf\xe8.png"))
