"""The oracle's own promises; its numbers are checked against golden data in tests/verify."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.models.protocol import Prompt
from jaxphoton.oracle.oracle import Oracle, OracleRequest, Prediction
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Token
from jaxphoton.weights.load import load_model

QUESTION = Prompt((1, 381, 2, 20, 21, 3, 3))


@pytest.fixture(scope="module")
def oracle(goldens) -> Oracle:
    family, params = load_model(goldens / "md2-tiny", jnp.float32)
    return Oracle(params, family)


def request(oracle: Oracle, grammar: str = "text", prompt: Prompt = QUESTION, **settings) -> OracleRequest:
    return OracleRequest(prompt, oracle.family.grammars[grammar], Settings(**settings))


def ids(generation) -> list[int]:
    return [token.id for token in generation.tokens]


def read_logits(oracle: Oracle, prediction: Prediction, token: int) -> list[np.ndarray]:
    """What is drawn from beside a token."""
    seen: list[np.ndarray] = []

    def draw(logits: np.ndarray, stream: int) -> tuple[int, float]:
        seen.append(logits)
        return 0, 0.0

    oracle.read(prediction, token, draw)
    return seen


def test_a_seed_reproduces_and_another_differs(oracle):
    first, again, other = (
        oracle.run(request(oracle, temperature=1.5, top_p=1.0, max_tokens=12, seed=seed)) for seed in (5, 5, 6)
    )
    assert first == again
    assert ids(first) != ids(other)


def test_region_values_are_drawn_and_fed_back(oracle):
    # detect without a way out, so that there is something to see whatever the weights say
    coordinate, size = frozenset({5}), frozenset({6})
    endless = Grammar(
        {
            "x": State(allow=coordinate, moves={5: "y"}, reads=True),
            "y": State(allow=coordinate, moves={5: "size"}, reads=True),
            "size": State(allow=size, moves={6: "x"}, reads=True, completes=size),
        }
    )
    settings = Settings(temperature=2.0, top_p=1.0, max_objects=2, max_tokens=99, seed=1)
    generation = oracle.run(OracleRequest(QUESTION, endless, settings))
    assert [token.id for token in generation.tokens] == [5, 5, 6] * 2
    assert [len(token.value or ()) for token in generation.tokens] == [1, 1, 2] * 2
    assert len({token.bins for token in generation.tokens}) > 2
    predictions = oracle.replay(QUESTION, None, generation.tokens)
    changed = oracle.replay(QUESTION, None, [Token(5, value=(0.123,)), *generation.tokens[1:]])
    assert not np.allclose(predictions[1].logits, changed[1].logits)


def test_replay_sees_the_logits_that_generation_saw(oracle):
    generation = oracle.run(request(oracle, "detect", temperature=0.0, max_objects=2, max_tokens=99))
    predictions = oracle.replay(QUESTION, None, generation.content)
    for token, prediction in zip(generation.content, predictions, strict=False):
        if token.bins:
            assert token.bins == tuple(int(np.argmax(logits)) for logits in read_logits(oracle, prediction, token.id))


def test_a_choice_that_is_refused_while_the_readout_runs_is_heard_of_outside(oracle):
    prediction = oracle.start(QUESTION).prediction

    def refuse(logits: np.ndarray, stream: int) -> tuple[int, float]:
        raise AssertionError(f"not this one, of {len(logits)}")

    with pytest.raises(AssertionError, match="not this one, of"):
        oracle.read(prediction, 6, refuse)
    assert len(read_logits(oracle, prediction, 6)) == 2 and not read_logits(oracle, prediction, 20)


def test_log_probabilities_are_those_of_the_allowed_ids(oracle):
    (token,) = oracle.run(request(oracle, "detect", temperature=0.0, max_tokens=1)).tokens
    prediction = oracle.start(QUESTION).prediction
    pair = prediction.logits[[0, 5]].astype(np.float64)
    expected = prediction.logits[token.id] - np.logaddexp(*pair)
    if token.bins:
        (coordinate,) = read_logits(oracle, prediction, token.id)
        coordinate = coordinate.astype(np.float64)
        expected += coordinate.max() - np.log(np.exp(coordinate - coordinate.max()).sum()) - coordinate.max()
    assert token.logprob == pytest.approx(expected, abs=1e-4)


def test_a_full_context_ends_a_text_with_length(oracle):
    limit = oracle.family.max_context
    prompt = Prompt(tuple([1] * (limit - 4)))
    generation = oracle.run(request(oracle, prompt=prompt, temperature=0.0))
    assert generation.finish_reason == "stop" or len(generation.tokens) == 3


def test_a_prompt_longer_than_the_context_is_refused(oracle):
    limit = oracle.family.max_context
    with pytest.raises(ValueError, match=f"{limit} positions; this model's context holds {limit}"):
        oracle.start(Prompt(tuple([1] * (limit - 1))))


def test_generation_steps_show_the_finish_at_the_last_token_only(oracle):
    finishes = [replay.finish for _, replay in oracle.generate(request(oracle, temperature=0.0, max_tokens=4))]
    assert finishes[-1] is not None and not any(finishes[:-1])
