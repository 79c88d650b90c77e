"""The tables say what the rules say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.constraints import automaton
from jaxphoton.constraints.grammar import Grammar, Replay, State
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream.reading import config_from_dict, named_config

CONFIG = named_config("moondream2")
GRAMMARS = registry.grammars(CONFIG.tokenizer)
VOCAB = 77
TABLES = automaton.build(GRAMMARS, VOCAB)


@pytest.mark.parametrize("name", GRAMMARS)
@given(data=st.data())
def test_tables_follow_the_rules_token_by_token(name, data):
    walk, state = Replay(GRAMMARS[name], max_tokens=40, max_objects=5), TABLES.start[name]
    while walk.finish is None:
        mask = TABLES.mask(state)
        assert mask.tolist() == [walk.allows(token) for token in range(VOCAB)]
        assert TABLES.reads[state] == walk.rules.reads
        token = data.draw(st.sampled_from([*np.flatnonzero(mask)[:12].tolist(), int(np.flatnonzero(mask)[-1])]))
        objects = walk.objects
        walk.advance(token)
        assert TABLES.completes[state, TABLES.token_class[token]] == (walk.objects > objects)
        state = TABLES.advance(state, token)
        assert (state == automaton.DONE) == (walk.finish == "stop")


@given(st.integers(1, 130), st.integers(0, 2**31))
def test_bits_round_trip(length, seed):
    mask = np.random.default_rng(seed).random((3, length)) < 0.5
    words = automaton.pack_bits(mask)
    assert words.shape == (3, -(-length // 32))
    np.testing.assert_array_equal(automaton.unpack_bits(words, length), mask)
    ones = np.flatnonzero(mask[0])
    assert all(words[0, i // 32] >> np.uint32(i % 32) & np.uint32(1) for i in ones)


def test_what_each_skill_allows_first():
    first = {name: np.flatnonzero(TABLES.mask(TABLES.start[name])).tolist() for name in GRAMMARS}
    assert first["detect"] == first["point"] == [0, 5]
    assert 3 not in first["text"] and len(first["text"]) == VOCAB - 1
    assert not {0, 6} & set(first["reasoning"])


def test_a_family_without_reasoning_has_no_such_grammar():
    old = named_config("moondream-0.5b")
    assert set(registry.grammars(old.tokenizer)) == {"text", "detect", "point"}


def test_a_family_that_suppresses_nothing():
    plain = config_from_dict({"model_type": "moondream3"})
    assert not registry.grammars(plain.tokenizer)["text"].states["answer"].suppress


@pytest.mark.parametrize(
    ("states", "fault"),
    [({"a": State(moves={1: "b"})}, "unknown states"), ({"a": State(allow=frozenset())}, "allows nothing")],
)
def test_a_broken_grammar_is_refused(states, fault):
    with pytest.raises(ValueError, match=fault):
        Grammar(states)


def test_ids_outside_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="must lie in"):
        automaton.build({"g": Grammar({"a": State(stop=frozenset({VOCAB}))})}, VOCAB)


def test_walk_prefers_stop_over_length_and_refuses_what_is_not_allowed():
    walk = Replay(GRAMMARS["detect"], max_tokens=1, max_objects=1)
    with pytest.raises(ValueError, match="not allowed"):
        walk.advance(6)
    assert walk.advance(0) == "stop"
    with pytest.raises(ValueError, match="finished"):
        walk.advance(0)


def test_the_object_cap_ends_a_sequence():
    walk = Replay(GRAMMARS["detect"], max_tokens=100, max_objects=2)
    ids = [5, 5, 6, 5, 5, 6]
    assert [walk.advance(i) for i in ids] == [None] * 5 + ["length"]
