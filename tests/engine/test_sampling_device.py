"""Sampling on the device against its definition in NumPy."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton import oracle_sampling as plain
from jaxphoton.engine import sampling
from jaxphoton.skills.settings import Settings
from tests.engine.judge import judge_choice

ENTRIES = 40
WORDS = st.integers(0, 2**32 - 1)
BORDER = 1e-5  # sums in float32 and float64 differ: nearer to top_p than this, either answer is right

threefry = jax.jit(sampling.threefry2x32)
gumbel = jax.jit(sampling.gumbel, static_argnums=(2, 3))
keep = jax.jit(sampling.top_p_keep)
choose = jax.jit(partial(sampling.choose, stream=sampling.TOKEN))


@given(WORDS, WORDS, st.lists(st.tuples(WORDS, WORDS), min_size=8, max_size=8))
def test_random_words_are_those_of_the_definition(first_key, second_key, counters):
    words = np.array(counters, np.uint32)
    expected, _ = plain.threefry2x32((first_key, second_key), words[:, 0], words[:, 1])
    key = (np.uint32(first_key), np.uint32(second_key))
    np.testing.assert_array_equal(threefry(key, words[:, 0], words[:, 1]), expected)


def test_random_words_are_those_of_the_published_example():
    # Random123 1.14, known answers of threefry2x32 with 20 rounds.
    key = (np.uint32(0x13198A2E), np.uint32(0x03707344))
    word = threefry(key, np.uint32([0x243F6A88]), np.uint32([0x85A308D3]))
    assert np.asarray(word).tolist() == [0xC4923A9C]


@given(WORDS, st.integers(0, 2**20), st.sampled_from(range(4)))
def test_noise_is_that_of_the_definition(seed, index, stream):
    seeds, indices = np.uint32([seed, seed]), np.int32([index, 0])
    noise = np.asarray(gumbel(seeds, indices, stream, ENTRIES))
    for row, number in zip(noise, (index, 0), strict=True):
        np.testing.assert_allclose(row, plain.gumbel(seed, number, stream, ENTRIES), rtol=1e-5, atol=1e-5)
    assert np.all(np.isfinite(noise))


WEIGHTS = st.one_of(
    st.sampled_from([0.0, 1.0, 1e-3, 1e-12, 1e-30, 1e-38]),
    st.floats(0, 1, width=32),
)


@given(st.lists(WEIGHTS, min_size=ENTRIES, max_size=ENTRIES), st.floats(1e-3, 1.0, width=32))
def test_top_p_keeps_what_sorting_would_keep(weights, top_p):
    values = np.float32(weights)
    if not values.sum() > 1e-20:
        values[7] = 1.0
    values = (values / values.sum(dtype=np.float64)).astype(np.float32)
    got = np.asarray(keep(values[None], np.float32([top_p])))[0]
    exact = values.astype(np.float64)
    sure, possible = plain.top_p_keep(exact, top_p - BORDER), plain.top_p_keep(exact, top_p + BORDER)
    assert np.all(got[sure]) and not np.any(got[~possible])
    assert got[np.argmax(values)]  # the most probable is never dropped


@pytest.mark.parametrize("top_p", [0.25, 0.5, 0.749, 0.75, 1.0])
def test_of_equal_probabilities_the_first_are_kept(top_p):
    # Sums of quarters are exact: the entry that crosses the threshold is kept, and one that starts at it.
    values = np.float32([0, 0.25, 0.25, 0, 0.25, 0.25])
    got = np.asarray(keep(values[None], np.float32([top_p])))[0]
    assert got.tolist() == plain.top_p_keep(values.astype(np.float64), top_p).tolist()


def test_each_row_has_its_own_top_p():
    values = np.float32([[0.6, 0.3, 0.1]] * 3)
    got = np.asarray(keep(values, np.float32([0.5, 0.7, 1.0])))
    assert got.sum(axis=1).tolist() == [1, 2, 3]


def rows(count: int, **columns) -> dict[str, np.ndarray]:
    """Arguments of `choose` for `count` rows of random logits."""
    random = np.random.default_rng(3)
    arguments = {
        "logits": random.normal(0, 2, (count, ENTRIES)).astype(np.float32),
        "temperature": np.float32(random.choice([0, 0.7, 1.5], count)),
        "top_p": np.float32(random.choice([0.3, 0.9, 1.0], count)),
        "seed": random.integers(0, 2**32, count, np.uint32),
        "index": random.integers(0, 800, count, np.int32),
        "needed": np.ones(count, bool),
    }
    return {**arguments, **columns}


def test_choices_are_those_of_the_definition():
    arguments = rows(64)
    arguments["logits"][:, ::3] = -np.inf
    chosen, logprobs = choose(**arguments)
    for i in range(64):
        temperature, top_p, seed, index = (
            arguments[name][i].item() for name in ("temperature", "top_p", "seed", "index")
        )
        settings = Settings(temperature, top_p, seed=seed)
        expected = judge_choice(int(chosen[i]), arguments["logits"][i], settings, index, plain.TOKEN)
        assert abs(expected - float(logprobs[i])) < 1e-5


@pytest.mark.parametrize("stream", range(4))
def test_streams_are_independent(stream):
    arguments = rows(64, temperature=np.full(64, 1.5, np.float32), top_p=np.ones(64, np.float32))
    chosen, _ = sampling.choose(**arguments, stream=stream)
    others = [sampling.choose(**arguments, stream=other)[0] for other in range(4) if other != stream]
    assert all(np.any(np.asarray(chosen) != np.asarray(other)) for other in others)


@pytest.mark.parametrize(("temperature", "greedy"), [(0.0, True), (1e-6, True), (2e-6, False)])
def test_up_to_a_millionth_a_temperature_means_the_most_probable(temperature, greedy):
    # Two entries a hair apart: at the smallest temperatures noise decides, in greedy decoding it never does.
    logits = np.zeros((64, 2), np.float32)
    logits[:, 1] = 1e-7
    seeds = np.arange(64, dtype=np.uint32)
    columns = {name: np.full(64, value, np.float32) for name, value in (("temperature", temperature), ("top_p", 1.0))}
    chosen, _ = choose(**rows(64, logits=logits, seed=seeds, **columns))
    assert (set(np.asarray(chosen).tolist()) == {1}) == greedy


def test_of_equal_logits_greedy_takes_the_first():
    chosen, _ = choose(**rows(1, logits=np.float32([[0, 2, 1, 2]]), temperature=np.zeros(1, np.float32)))
    assert np.asarray(chosen).tolist() == [1]


def test_a_choice_does_not_depend_on_the_order_of_the_batch():
    arguments = rows(64)
    order = np.random.default_rng(5).permutation(64)
    chosen, logprobs = choose(**arguments)
    again, logprobs_again = choose(**{name: column[order] for name, column in arguments.items()})
    np.testing.assert_array_equal(np.asarray(chosen)[order], again)
    np.testing.assert_array_equal(np.asarray(logprobs)[order], logprobs_again)


def test_a_row_without_top_p_keeps_everything_whatever_the_others_ask_for(monkeypatch):
    # Rounded in float32, the mass before the last entries may exceed 1; noise is what singles one of them out here.
    logits = np.zeros((2, 4096), np.float32)
    logits[:, -1] = -30
    noise = np.zeros((2, 4096), np.float32)
    noise[:, -1] = 60
    monkeypatch.setattr(sampling, "gumbel", lambda *_: jnp.asarray(noise))
    arguments = rows(2, logits=logits, temperature=np.full(2, 1.03, np.float32), top_p=np.float32([1, 0.5]))
    chosen, _ = sampling.choose(**arguments, stream=sampling.TOKEN)
    assert np.asarray(chosen)[0] == 4095 and np.asarray(chosen)[1] != 4095


def test_rows_that_nobody_needs_cannot_disturb_the_others():
    arguments = rows(4, temperature=np.float32([0, 0, 1, 0]), needed=np.array([True, True, False, True]))
    arguments["logits"][2] = np.nan
    chosen, logprobs = choose(**arguments)
    for i in (0, 1, 3):
        assert int(chosen[i]) == int(np.argmax(arguments["logits"][i])) and np.isfinite(float(logprobs[i]))


def test_draws_follow_the_distribution():
    # 20,000 draws of one row's distribution; 37.7 is exceeded once in 1000 by a chi-square of 15 degrees of freedom.
    draws, entries = 20_000, 16
    logits = np.tile(np.random.default_rng(7).normal(0, 1, entries).astype(np.float32), (draws, 1))
    arguments = {
        "logits": logits,
        "temperature": np.full(draws, 1.3, np.float32),
        "top_p": np.ones(draws, np.float32),
        "seed": np.full(draws, 11, np.uint32),
        "index": np.arange(draws, dtype=np.int32),
        "needed": np.ones(draws, bool),
    }
    chosen, _ = choose(**arguments)
    expected = np.exp(plain.log_softmax(logits[0] / 1.3)) * draws
    observed = np.bincount(np.asarray(chosen), minlength=entries)
    assert float(np.sum((observed - expected) ** 2 / expected)) < 37.7
