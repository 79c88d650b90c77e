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
from jaxphoton.skills.settings import MAX_TEMPERATURE, Settings
from tests.engine.judge import judge_choice

ROWS, ENTRIES = 64, 40  # of all batches here: one compilation each
WORDS = st.integers(0, 2**32 - 1)
BORDER = 1e-5  # sums in float32 and float64 differ: nearer to top_p than this, either answer is right

threefry = jax.jit(sampling.threefry2x32)
gumbel = jax.jit(sampling.gumbel, static_argnums=(2, 3))
compiled_keep = jax.jit(sampling.top_p_keep)
choose = jax.jit(sampling.choose, static_argnames="stream")


def keep(values: np.ndarray, top_p: float | list[float]) -> np.ndarray:
    """top_p_keep of one row of probabilities, once for each top_p (three at most)."""
    batch = np.zeros((3, ENTRIES), np.float32)
    batch[:, : len(values)] = values
    wanted = np.ones(3, np.float32)
    wanted[: np.size(top_p)] = top_p
    return np.asarray(compiled_keep(batch, wanted))[: np.size(top_p), : len(values)]


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


@given(st.lists(WEIGHTS, min_size=ENTRIES, max_size=ENTRIES), st.floats(1e-3, 1.0))
def test_top_p_keeps_what_sorting_would_keep(weights, top_p):
    values = np.float32(weights)
    if not values.sum() > 1e-20:
        values[7] = 1.0
    values = (values / values.sum(dtype=np.float64)).astype(np.float32)
    got = keep(values, top_p)[0]
    exact = values.astype(np.float64)
    sure, possible = plain.top_p_keep(exact, top_p - BORDER), plain.top_p_keep(exact, top_p + BORDER)
    assert np.all(got[sure]) and not np.any(got[~possible])
    assert got[np.argmax(values)]  # the most probable is never dropped


@pytest.mark.parametrize("top_p", [0.25, 0.5, 0.749, 0.75, 1.0])
def test_of_equal_probabilities_the_first_are_kept(top_p):
    # Sums of quarters are exact: the entry that crosses the threshold is kept, and one that starts at it.
    values = np.float32([0, 0.25, 0.25, 0, 0.25, 0.25])
    got = keep(values, top_p)[0]
    assert got.tolist() == plain.top_p_keep(values.astype(np.float64), top_p).tolist()


def test_each_row_has_its_own_top_p():
    got = keep(np.float32([0.6, 0.3, 0.1]), [0.5, 0.7, 1.0])
    assert got.sum(axis=1).tolist() == [1, 2, 3]


def batch(**columns) -> dict:
    """Arguments of `choose`: random ones, and what a test says."""
    random = np.random.default_rng(3)
    arguments = {
        "logits": random.normal(0, 2, (ROWS, ENTRIES)),
        "temperature": random.choice([0, 0.7, 1.5], ROWS),
        "top_p": random.choice([0.3, 0.9, 1.0], ROWS),
        "seed": random.integers(0, 2**32, ROWS, np.uint32),
        "index": random.integers(0, 800, ROWS, np.int32),
        "needed": np.ones(ROWS, bool),
        "stream": sampling.TOKEN,
    }
    arguments.update(columns)
    for name in ("temperature", "top_p"):
        arguments[name] = np.broadcast_to(arguments[name], ROWS).astype(np.float32)
    arguments["logits"] = np.asarray(arguments["logits"], np.float32)
    return arguments


def chosen_of(**columns) -> np.ndarray:
    return np.asarray(choose(**batch(**columns))[0])


def test_choices_are_those_of_the_definition():
    arguments = batch()
    arguments["logits"][:, ::3] = -np.inf
    chosen, logprobs = choose(**arguments)
    for i in range(ROWS):
        temperature, top_p, seed, index = (arguments[n][i].item() for n in ("temperature", "top_p", "seed", "index"))
        settings = Settings(temperature, top_p, seed=seed)
        expected = judge_choice(int(chosen[i]), arguments["logits"][i], settings, index, plain.TOKEN)
        assert abs(expected - float(logprobs[i])) < 1e-5


def test_streams_are_independent():
    chosen = [chosen_of(temperature=1.5, top_p=1.0, stream=stream) for stream in range(4)]
    assert len({tuple(one.tolist()) for one in chosen}) == 4


@pytest.mark.parametrize(("temperature", "greedy"), [(0.0, True), (1e-6, True), (2e-6, False)])
def test_up_to_a_millionth_a_temperature_means_the_most_probable(temperature, greedy):
    # Two entries a hair apart: at the smallest temperatures noise decides, in greedy decoding it never does.
    logits = np.full((ROWS, ENTRIES), -np.inf)
    logits[:, 0], logits[:, 1] = 0, 1e-7
    assert (set(chosen_of(logits=logits, temperature=temperature, top_p=1.0).tolist()) == {1}) == greedy


def test_of_equal_logits_greedy_takes_the_first():
    logits = np.zeros((ROWS, ENTRIES))
    logits[:, [7, 9]] = 2
    assert set(chosen_of(logits=logits, temperature=0.0).tolist()) == {7}


def test_the_largest_temperature_still_forbids_what_is_forbidden():
    logits = np.full((ROWS, ENTRIES), -np.inf)
    logits[:, [3, 8]] = 5, -40
    chosen = chosen_of(logits=logits, temperature=MAX_TEMPERATURE, top_p=1.0)
    assert set(chosen.tolist()) == {3, 8}


def test_a_choice_does_not_depend_on_the_order_of_the_batch():
    arguments, order = batch(), np.random.default_rng(5).permutation(ROWS)
    chosen, logprobs = choose(**arguments)
    again = choose(**{name: column if name == "stream" else column[order] for name, column in arguments.items()})
    np.testing.assert_array_equal(np.asarray(chosen)[order], again[0])
    np.testing.assert_array_equal(np.asarray(logprobs)[order], again[1])


def test_a_row_without_top_p_keeps_everything_whatever_the_others_ask_for(monkeypatch):
    # Rounded, the mass before the last entry exceeds 1 in some rows; noise singles that entry out here.
    arguments = batch(temperature=1.0, top_p=[1.0] * (ROWS - 1) + [0.5])
    arguments["logits"][:, -1] = -25
    noise = np.zeros((ROWS, ENTRIES), np.float32)
    noise[:, -1] = 60
    monkeypatch.setattr(sampling, "gumbel", lambda *_: jnp.asarray(noise))
    chosen, _ = jax.jit(partial(sampling.choose, stream=sampling.TOKEN))(
        **{name: column for name, column in arguments.items() if name != "stream"}
    )
    assert set(np.asarray(chosen)[:-1].tolist()) == {ENTRIES - 1} and int(chosen[-1]) != ENTRIES - 1


def test_rows_that_nobody_needs_cannot_disturb_the_others():
    lost = np.arange(ROWS) == 2
    arguments = batch(temperature=np.where(lost, 1, 0), needed=~lost)
    arguments["logits"][2] = np.nan
    chosen, logprobs = choose(**arguments)
    np.testing.assert_array_equal(np.asarray(chosen)[~lost], np.argmax(arguments["logits"], axis=1)[~lost])
    assert np.all(np.isfinite(np.asarray(logprobs)[~lost]))


def test_draws_follow_the_distribution():
    # Some 20,000 draws; 37.7 is exceeded once in 1000 by a chi-square of 15 degrees of freedom.
    rounds, entries = 313, 16
    logits = np.full((ROWS, ENTRIES), -np.inf, np.float32)
    logits[:, :entries] = np.random.default_rng(7).normal(0, 1, entries)
    observed = np.zeros(entries, int)
    for i in range(rounds):
        index = np.arange(i * ROWS, (i + 1) * ROWS, dtype=np.int32)
        chosen = chosen_of(logits=logits, temperature=1.3, top_p=1.0, seed=np.full(ROWS, 11, np.uint32), index=index)
        observed += np.bincount(chosen, minlength=entries)
    expected = np.exp(plain.log_softmax(logits[0, :entries] / 1.3)) * rounds * ROWS
    assert float(np.sum((observed - expected) ** 2 / expected)) < 37.7
