"""The NumPy sampler: known answers, exact distributions, independence of everything but the request."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.oracle import sampling


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_answers(key, counter, expected):
    words = sampling.threefry2x32(key, *(np.array([c], np.uint32) for c in counter))
    assert tuple(int(word[0]) for word in words) == expected


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20).filter(sum), st.floats(0.01, 1.0))
def test_top_p_keeps_the_smallest_set_that_crosses(weights, top_p):
    probabilities = np.array(weights) / sum(weights)
    keep = sampling.top_p_keep(probabilities, top_p)
    order = np.argsort(-probabilities, kind="stable")
    kept = int(keep.sum())
    assert keep[order[:kept]].all() and kept >= 1
    mass = np.cumsum(probabilities[order])
    if kept < len(order):
        assert mass[kept - 1] > top_p
    if kept > 1:
        assert mass[kept - 2] <= top_p + 1e-12


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_draws_follow_the_exact_distribution(temperature, top_p):
    logits = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -np.inf], np.float32)
    probabilities = np.exp(sampling.log_softmax(logits / temperature))
    expected = np.where(sampling.top_p_keep(probabilities, top_p), probabilities, 0)
    expected /= expected.sum()
    draws = 20_000
    counts = np.zeros(len(logits))
    for seed in range(draws):
        counts[np.argmax(sampling.perturbed_scores(logits, temperature, top_p, seed, 3, sampling.TOKEN))] += 1
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_square = np.sum((counts - draws * expected)[possible] ** 2 / (draws * expected[possible]))
    # 99.99% quantile of chi-square at 4 degrees of freedom.
    assert chi_square < 23.5


def test_greedy_takes_the_first_of_equal_logits():
    logits = np.array([0.0, 3.0, 3.0], np.float32)
    assert np.argmax(sampling.perturbed_scores(logits, 1e-7, 0.5, 1, 0, sampling.TOKEN)) == 1


def test_noise_differs_by_seed_position_and_stream_and_not_otherwise():
    base = sampling.gumbel(7, 3, sampling.TOKEN, 50)
    np.testing.assert_array_equal(base, sampling.gumbel(7, 3, sampling.TOKEN, 50))
    np.testing.assert_array_equal(base[:20], sampling.gumbel(7, 3, sampling.TOKEN, 20))
    others = [(8, 3, sampling.TOKEN), (7, 4, sampling.TOKEN), (7, 3, 2)]
    assert all(not np.array_equal(base, sampling.gumbel(*other, 50)) for other in others)
    assert np.isfinite(base).all()
