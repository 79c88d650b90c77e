"""Sampling: its definition in NumPy, the reference and the kernels against each other; what all of them keep to."""

from __future__ import annotations

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.oracle import sampling as plain
from jaxphoton.requests.settings import MAX_TEMPERATURE
from kernels_pallas.dispatch import KernelUnavailable
from kernels_pallas.masked_sample import cases, masked_sample, reference, threefry

ROWS, ENTRIES = 64, 40  # of most batches here: one compilation each
BACKENDS = ("loop", "interpret")  # `reference` is `loop` but for top-p, written out
WORDS = st.integers(0, 2**32 - 1)
BORDER = 1e-5  # sums in float32 and float64 differ: nearer to top_p than this, either answer is right
NEAR = 1e-5  # scores nearer than this are tied

both = pytest.mark.parametrize("backend", BACKENDS)
compiled = jax.jit(masked_sample, static_argnames=("stream", "backend"))


def allowed(arguments: dict, row: int) -> np.ndarray:
    """bool [V]: what the table and the mask leave of a row."""
    columns = arguments["logits"].shape[1]
    words = np.full(-(-columns // 32), 2**32 - 1, np.uint32)
    if arguments.get("table") is not None:
        words = words & arguments["table"][arguments["state"][row]]
    if arguments.get("mask") is not None:
        words = words & arguments["mask"][row]
    column = np.arange(columns)
    return (words[column // 32] >> (column % 32).astype(np.uint32)) & 1 > 0


def check_choice(arguments: dict, row: int, token: int, logprob: float) -> None:
    """Asserts that a choice is the definition's, up to ties within NEAR and top-p mass within BORDER."""
    free = allowed(arguments, row)
    if not free.any():
        assert token == 0 and np.isnan(logprob)
        return
    logits = np.where(free, arguments["logits"][row].astype(np.float64), -np.inf)
    temperature, top_p, seed, index = (arguments[n][row].item() for n in ("temperature", "top_p", "seed", "index"))
    certain, possible = (
        plain.perturbed_scores(logits, temperature, share, seed, index, arguments["stream"])
        for share in (max(top_p - BORDER, 0.0), top_p + BORDER)
    )
    assert certain.max() - possible[token] <= NEAR
    assert abs(plain.log_softmax(logits)[token] - logprob) <= 1e-5
    if temperature <= plain.GREEDY_BELOW:
        assert token == np.argmax(logits)


def compare(arguments: dict) -> None:
    """Both backends against the definition and each other."""
    (token, logprob), (other, other_logprob) = (
        (np.asarray(part) for part in compiled(**arguments, backend=backend)) for backend in BACKENDS
    )
    for row in range(len(token)):
        check_choice(arguments, row, token[row], logprob[row])
        if other[row] != token[row]:  # a tie, then
            check_choice(arguments, row, other[row], other_logprob[row])
    same = other == token
    np.testing.assert_allclose(other_logprob[same], logprob[same], rtol=0, atol=1e-5)
    assert same.sum() >= len(same) - 1


def arguments_of(case: cases.Case, seed: int = 0) -> dict:
    positional, keywords = case.inputs(seed)
    return dict(zip(("logits", "temperature", "top_p", "seed", "index"), positional, strict=True)) | keywords


@pytest.mark.smoke
@pytest.mark.parametrize("case", cases.SMALL, ids=lambda case: case.name)
def test_kernels_choose_what_the_reference_chooses(case):
    compare(arguments_of(case))


@pytest.mark.parametrize("case", cases.SMALL, ids=lambda case: case.name)
def test_a_bisection_written_out_chooses_what_a_loop_chooses(case):
    loop, written_out = (compiled(**arguments_of(case), backend=backend) for backend in ("loop", "reference"))
    np.testing.assert_array_equal(loop[0], written_out[0])
    np.testing.assert_allclose(loop[1], written_out[1], rtol=0, atol=1e-5)


@settings(max_examples=25)
@given(st.data())
@pytest.mark.parametrize("columns", [33, 2100])
def test_any_mask_temperature_and_top_p(columns, data):
    rows, states, words = 4, 3, -(-columns // 32)
    random = np.random.default_rng(data.draw(WORDS))
    table = random.integers(0, 2**32, (states, words), np.uint32)
    table[0] = 2**32 - 1
    column = data.draw(st.integers(0, columns - 1))
    table[1] = 0
    table[1, column // 32] = 1 << (column % 32)
    mask = np.full((rows, words), 2**32 - 1, np.uint32)
    mask[0] = random.integers(0, 2**32, words, np.uint32)
    spread = data.draw(st.sampled_from([0.0, 0.01, 1.0, 10.0]))

    def each(values) -> np.ndarray:
        return np.array(data.draw(st.lists(st.sampled_from(values), min_size=rows, max_size=rows)), np.float32)

    logits = random.normal(0, spread, (rows, columns)).astype(np.float32)
    compare(
        {
            "logits": np.round(logits) if data.draw(st.booleans()) else logits,  # with ties, and negative zeros
            "temperature": each([0.0, 1e-6, 0.2, 1.0, 100.0]),
            "top_p": each([0.0, 1e-9, 0.01, 0.5, 0.9, 1.0]),
            "seed": random.integers(0, 2**32, rows, np.uint32),
            "index": random.integers(0, 2**20, rows, np.int32),
            "stream": 3,
            "table": table,
            "state": np.int32(data.draw(st.lists(st.integers(0, states - 1), min_size=rows, max_size=rows))),
            "mask": mask,
        }
    )


@both
@pytest.mark.parametrize("top_p", [0.0, 0.25, 0.49])
def test_ties_at_the_border_of_top_p_go_by_index(backend, top_p):
    # Four equal entries: those are drawn that have at most the share top_p before them.
    logits = np.full((ROWS, ENTRIES), -np.inf)
    logits[:, [30, 4, 9, 17]] = 1.5
    drawn = chosen_of(backend, logits=logits, temperature=1.0, top_p=top_p, index=np.arange(ROWS, dtype=np.int32))
    assert set(drawn.tolist()) == ({4, 9} if top_p >= 0.25 else {4})


def batch(**columns) -> dict:
    """Arguments of `masked_sample`: random ones, and what a test says."""
    random = np.random.default_rng(3)
    arguments = {
        "logits": random.normal(0, 2, (ROWS, ENTRIES)),
        "temperature": random.choice([0, 0.7, 1.5], ROWS),
        "top_p": random.choice([0.3, 0.9, 1.0], ROWS),
        "seed": random.integers(0, 2**32, ROWS, np.uint32),
        "index": random.integers(0, 800, ROWS, np.int32),
        "needed": np.ones(ROWS, bool),
        "stream": 0,
    }
    arguments.update(columns)
    for name in ("temperature", "top_p"):
        arguments[name] = np.broadcast_to(arguments[name], ROWS).astype(np.float32)
    arguments["logits"] = np.asarray(arguments["logits"], np.float32)
    return arguments


def chosen_of(backend: str, **columns) -> np.ndarray:
    return np.asarray(compiled(**batch(**columns), backend=backend)[0])


@both
def test_streams_are_independent(backend):
    chosen = [chosen_of(backend, temperature=1.5, top_p=1.0, stream=stream) for stream in (0, 3)]
    assert np.any(chosen[0] != chosen[1])


@both
def test_rows_of_several_streams_draw_as_each_would_alone(backend):
    arguments = batch(temperature=1.5)
    streams = np.arange(ROWS, dtype=np.int32) % 3
    drawn, _ = jax.jit(partial(masked_sample, backend=backend))(**arguments | {"stream": streams})
    alone = [chosen_of(backend, **arguments | {"stream": stream}) for stream in range(3)]
    np.testing.assert_array_equal(drawn, np.choose(streams, alone))


@both
@pytest.mark.parametrize(("temperature", "greedy"), [(0.0, True), (1e-6, True), (2e-6, False)])
def test_up_to_a_millionth_a_temperature_means_the_most_probable(backend, temperature, greedy):
    # Two entries a hair apart: at the smallest temperatures noise decides, in greedy decoding it never does.
    logits = np.full((ROWS, ENTRIES), -np.inf)
    logits[:, 0], logits[:, 1] = 0, 1e-7
    assert (set(chosen_of(backend, logits=logits, temperature=temperature, top_p=1.0).tolist()) == {1}) == greedy


@both
def test_of_equal_logits_greedy_takes_the_first(backend):
    logits = np.zeros((ROWS, ENTRIES))
    logits[:, [7, 9]] = 2
    assert set(chosen_of(backend, logits=logits, temperature=0.0).tolist()) == {7}


@both
def test_the_largest_temperature_still_forbids_what_is_forbidden(backend):
    logits = np.full((ROWS, ENTRIES), -np.inf)
    logits[:, [3, 8]] = 5, -40
    chosen = chosen_of(backend, logits=logits, temperature=MAX_TEMPERATURE, top_p=1.0)
    assert set(chosen.tolist()) == {3, 8}


@both
def test_where_nothing_is_allowed_the_first_entry_comes_back(backend):
    chosen, logprobs = compiled(**batch(mask=np.zeros((ROWS, 2), np.uint32)), backend=backend)
    assert not np.any(chosen) and np.all(np.isnan(logprobs))


@both
def test_a_choice_does_not_depend_on_the_order_of_the_batch(backend):
    arguments, order = batch(), np.random.default_rng(5).permutation(ROWS)
    chosen, logprobs = compiled(**arguments, backend=backend)
    shuffled = {name: column if name == "stream" else column[order] for name, column in arguments.items()}
    again = compiled(**shuffled, backend=backend)
    np.testing.assert_array_equal(np.asarray(chosen)[order], again[0])
    np.testing.assert_array_equal(np.asarray(logprobs)[order], again[1])


@both
def test_a_row_without_top_p_keeps_everything_whatever_the_others_ask_for(monkeypatch, backend):
    # Rounded, the mass before the last entry exceeds 1 in some rows; noise singles that entry out here.
    arguments = batch(temperature=1.0, top_p=[1.0] * (ROWS - 1) + [0.5])
    arguments["logits"][:, -1] = -25
    monkeypatch.setattr(threefry, "gumbel", lambda *a: jnp.where(a[2] == ENTRIES - 1, jnp.float32(60), 0.0))
    # Traced anew, and for nobody else.
    monkeypatch.setattr(reference, "masked_sample", inspect.unwrap(reference.masked_sample))
    del arguments["stream"]
    chosen, _ = jax.jit(partial(masked_sample, stream=0, backend=backend))(**arguments)
    assert set(np.asarray(chosen)[:-1].tolist()) == {ENTRIES - 1} and int(chosen[-1]) != ENTRIES - 1


@both
def test_rows_that_nobody_needs_cannot_disturb_the_others(backend):
    lost = np.arange(ROWS) == 2
    arguments = batch(temperature=np.where(lost, 1, 0), needed=~lost)
    arguments["logits"][2] = np.nan
    chosen, logprobs = (np.asarray(part) for part in compiled(**arguments, backend=backend))
    np.testing.assert_array_equal(chosen[~lost], np.argmax(arguments["logits"], axis=1)[~lost])
    assert np.all(np.isfinite(logprobs[~lost])) and 0 <= chosen[2] < ENTRIES


@both
def test_broken_logits_give_some_entry(backend):
    logits = np.full((ROWS, ENTRIES), np.nan)
    logits[::2, ::2] = np.inf
    chosen = chosen_of(backend, logits=logits)
    assert np.all((chosen >= 0) & (chosen < ENTRIES))


@both
@pytest.mark.parametrize("top_p", [1.0, 0.8, 0.3])
def test_draws_follow_the_distribution(backend, top_p):
    rounds, entries, temperature = 313, 16, 1.3  # some 20,000 draws
    logits = np.full((ROWS, ENTRIES), -np.inf, np.float32)
    logits[:, :entries] = np.random.default_rng(7).normal(0, 1, entries)
    seeds = np.full(ROWS, 11, np.uint32)
    observed = np.zeros(entries)
    for i in range(rounds):
        index = np.arange(i * ROWS, (i + 1) * ROWS, dtype=np.int32)
        drawn = chosen_of(backend, logits=logits, temperature=temperature, top_p=top_p, seed=seeds, index=index)
        observed += np.bincount(drawn, minlength=entries)
    exact = np.exp(plain.log_softmax(logits[0, :entries] / temperature))
    kept = plain.top_p_keep(exact, top_p)
    expected = exact[kept] / exact[kept].sum() * rounds * ROWS
    assert observed[kept].sum() == rounds * ROWS
    statistic = np.sum((observed[kept] - expected) ** 2 / expected)
    # The chance of a larger chi-square with as many degrees of freedom.
    chance = jax.scipy.special.gammaincc(jnp.float32((kept.sum() - 1) / 2), jnp.float32(statistic / 2))
    assert chance > 1e-4


def test_what_the_kernels_cannot_take_is_computed_plainly_or_refused():
    arguments = batch()
    arguments["logits"] = arguments["logits"].astype(np.float16)
    drawn, _ = compiled(**arguments, backend=None)
    arguments["logits"] = arguments["logits"].astype(np.float32)
    np.testing.assert_array_equal(drawn, compiled(**arguments, backend="reference")[0])
    with pytest.raises(KernelUnavailable, match="logits are float16"):
        compiled(**(arguments | {"logits": np.zeros((ROWS, ENTRIES), np.float16)}), backend="interpret")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("logits", np.zeros(3, np.float32), r"logits are float32\[3\]"),
        ("temperature", np.zeros(ROWS, np.float64), r"temperature is float64\[64\], not float32\[64\]"),
        ("index", np.zeros(3, np.int32), r"index is int32\[3\], not int32\[64\]"),
        ("mask", np.zeros((ROWS, 1), np.uint32), r"mask is uint32\[64, 1\], not uint32\[64, 2\]"),
        ("state", np.zeros(ROWS, np.int32), "table and state"),
        ("stream", 8, "stream 8"),
        ("stream", np.zeros(3, np.int32), r"stream is int32\[3\], not int32\[64\]"),
    ],
)
def test_bad_arguments_are_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        masked_sample(**(batch() | {name: value}))
