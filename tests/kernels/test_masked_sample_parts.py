"""What sampling is made of, random words, noise and the top-p set, against its definition in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental import pallas as pl

from jaxphoton.oracle import sampling as plain
from kernels_pallas import triton_shim
from kernels_pallas.masked_sample import reference, threefry

ENTRIES = 40  # of all rows here: one compilation each
WORDS = st.integers(0, 2**32 - 1)
BORDER = 1e-5  # sums in float32 and float64 differ: nearer to top_p than this, either answer is right

drawn_words = jax.jit(threefry.threefry2x32)
gumbel = jax.jit(reference.gumbel, static_argnums=(2, 3))
compiled_keep = jax.jit(reference.top_p_keep, static_argnums=3)


@given(WORDS, WORDS, st.lists(st.tuples(WORDS, WORDS), min_size=8, max_size=8))
def test_random_words_are_those_of_the_definition(first_key, second_key, counters):
    words = np.array(counters, np.uint32)
    expected, _ = plain.threefry2x32((first_key, second_key), words[:, 0], words[:, 1])
    key = (np.uint32(first_key), np.uint32(second_key))
    np.testing.assert_array_equal(drawn_words(key, words[:, 0], words[:, 1]), expected)


def test_random_words_are_those_of_the_published_example():
    # Random123 1.14, known answers of threefry2x32 with 20 rounds.
    key = (np.uint32(0x13198A2E), np.uint32(0x03707344))
    word = drawn_words(key, np.array([0x243F6A88], np.uint32), np.array([0x85A308D3], np.uint32))
    assert np.asarray(word).tolist() == [0xC4923A9C]


@jax.jit
def words_of_a_kernel(seed: np.ndarray, index: np.ndarray) -> jax.Array:
    def kernel(seeds, indices, out):
        column = jnp.arange(ENTRIES, dtype=jnp.uint32)
        row = pl.program_id(0)
        out[row, :] = threefry.words(seeds[row], threefry.counter(indices[row], 2), column)

    shape = jax.ShapeDtypeStruct((len(seed), ENTRIES), jnp.uint32)
    call = {"name": "words", "grid": (len(seed),), "out_shape": shape, "warps": 1, "stages": 1}
    return triton_shim.pallas_call(kernel, interpret=True, **call)(seed, index)


@jax.jit
def words_of_the_reference(seed: jax.Array, index: jax.Array) -> jax.Array:
    column = jnp.arange(ENTRIES, dtype=jnp.uint32)
    return threefry.words(seed[:, None], threefry.counter(index, 2)[:, None], column[None, :])


@given(WORDS, st.integers(0, 2**20))
def test_every_backend_draws_the_words_of_the_definition(seed, index):
    seeds, indices = np.array([seed, 0], np.uint32), np.array([index, 0], np.int32)
    column = np.arange(ENTRIES, dtype=np.uint32)
    expected = [
        plain.threefry2x32((key, 0), np.full_like(column, 8 * number + 2), column)[0]
        for key, number in zip(seeds.tolist(), indices.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(words_of_a_kernel(seeds, indices), expected)
    np.testing.assert_array_equal(words_of_the_reference(seeds, indices), expected)


@given(WORDS, st.integers(0, 2**20), st.sampled_from(range(4)))
def test_noise_is_that_of_the_definition(seed, index, stream):
    noise = np.asarray(gumbel(np.array([seed] * 2, np.uint32), np.array([index, 0], np.int32), stream, ENTRIES))
    for row, number in zip(noise, (index, 0), strict=True):
        np.testing.assert_allclose(row, plain.gumbel(seed, number, stream, ENTRIES), rtol=1e-5, atol=1e-5)
    assert np.all(np.isfinite(noise))


def keep(values: np.ndarray, top_p: float | list[float]) -> np.ndarray:
    """top_p_keep of one row of probabilities, once for each top_p (three at most); the same written out and not."""
    batch = np.zeros((3, ENTRIES), np.float32)
    batch[:, : len(values)] = values
    wanted = np.ones(3, np.float32)
    wanted[: np.size(top_p)] = top_p
    kept, written_out = (np.asarray(compiled_keep(batch, batch, wanted, loop)) for loop in (True, False))
    np.testing.assert_array_equal(kept, written_out)
    return kept[: np.size(top_p), : len(values)]


WEIGHTS = st.one_of(
    st.sampled_from([0.0, 1.0, 1e-3, 1e-12, 1e-30, 1e-38]),
    st.floats(0, 1, width=32),
)


@given(st.lists(WEIGHTS, min_size=ENTRIES, max_size=ENTRIES), st.floats(1e-3, 1.0))
def test_top_p_keeps_what_sorting_would_keep(weights, top_p):
    values = np.array(weights, np.float32)
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
    values = np.array([0, 0.25, 0.25, 0, 0.25, 0.25], np.float32)
    got = keep(values, top_p)[0]
    assert got.tolist() == plain.top_p_keep(values.astype(np.float64), top_p).tolist()


def test_each_row_has_its_own_top_p():
    got = keep(np.array([0.6, 0.3, 0.1], np.float32), [0.5, 0.7, 1.0])
    assert got.sum(axis=1).tolist() == [1, 2, 3]
