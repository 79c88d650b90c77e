"""The same of a family with experts, tau attention and linear region heads: its skills in one batch, segment too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream.config import MoeConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import Params
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.oracle.oracle import Oracle
from jaxphoton.requests.tokens import Token
from tests.engine import tiny
from tests.engine.comparison import ROUTER_GAP, Comparison
from tests.engine.schedules import schedule
from tests.engine.test_oracle_equality import run_and_compare, run_schedules
from tests.engine.tiny import Loop, Poisoned, Schedule, at_once, request

# A step of 8 rows makes 16 choices, the most for which the chosen experts are gathered; a prefill visits all.
CONFIG = dataclasses.replace(
    tiny.CONFIG,
    text=dataclasses.replace(
        tiny.CONFIG.text,
        n_layers=3,
        n_kv_heads=4,
        rope_theta=1_500_000.0,
        tau_attn=True,
        moe=MoeConfig(num_experts=16, start_layer=1, experts_per_token=2, expert_inner_dim=12),
    ),
    region=dataclasses.replace(tiny.CONFIG.region, decoder_arch="linear", use_ln=True),
    tokenizer=named_config("moondream3").tokenizer,
)
KINDS = {"text": 0.15, "reasoning": 0.3, "detect": 0.15, "point": 0.15, "segment": 0.25}
EVERY = 3  # of the schedules: experts take their time
FUSED = 2  # schedules with interpreted kernels, which take their time
GRAMMARS = registry.grammars(CONFIG.tokenizer)


@pytest.fixture(scope="module")
def params() -> Params:
    return tiny.drawn(CONFIG)


@pytest.fixture(scope="module")
def programs(params) -> Programs:
    engine = dataclasses.replace(tiny.ENGINE, prefill_lengths=(6,), vision=((3, 9),), host_masks=False)
    return Programs(params, MoondreamFamily(CONFIG), engine)


@pytest.fixture(scope="module")
def device(programs) -> Device:
    return Device(Poisoned(programs))


@pytest.fixture(scope="module")
def comparison(params) -> Comparison:
    return Comparison(Oracle(params, MoondreamFamily(CONFIG)), GRAMMARS)


def test_random_schedules_give_what_the_oracle_gives(programs, device, comparison, pytestconfig):
    count = pytestconfig.getoption("--schedules")
    set_back = run_schedules(Loop(programs, device), comparison, range(0, count, EVERY), KINDS)
    assert set_back > 0 or count < 100 * EVERY, "the schedules never set a sequence back"


def test_every_skill_in_one_batch(programs, device, comparison):
    requests = [
        request(grammar, 3 + seed, seed % 3, seed=seed, temperature=1.5, max_tokens=14)
        for seed, grammar in enumerate(list(KINDS) * 3)
    ]
    run_and_compare(Loop(programs, device), comparison, Schedule(at_once(*requests)))
    segments = [comparison.expected(r).tokens for r in requests if r.grammar == "segment"]
    assert any(token.bins is not None for tokens in segments for token in tokens)


@pytest.mark.slow
def test_fused_steps_give_what_the_oracle_gives():
    """Dense layers by few kernels, with tau factors, in front of layers with experts; all kernels interpreted."""
    # The kernels take head dims, and sizes of experts, from 16 on.
    assert CONFIG.text.moe is not None
    text = dataclasses.replace(CONFIG.text, n_heads=2, n_kv_heads=2)
    text = dataclasses.replace(
        text, n_layers=4, moe=dataclasses.replace(CONFIG.text.moe, start_layer=2, expert_inner_dim=16)
    )
    config = dataclasses.replace(CONFIG, text=text)
    params, family = tiny.drawn(config), MoondreamFamily(config)
    engine = dataclasses.replace(
        tiny.ENGINE,
        step_rows=(8,),
        prefill_lengths=(16,),
        vision=((3, 9),),
        host_masks=False,
        kernels="interpret",
        step_form="fused",
    )
    programs = Programs(params, family, engine)
    loop, comparison = Loop(programs, Device(Poisoned(programs))), Comparison(Oracle(params, family), GRAMMARS)
    for number in range(FUSED):
        run_and_compare(loop, comparison, schedule(number, KINDS))
    assert comparison.compared > FUSED and not comparison.near_ties


def test_a_wrong_token_is_excused_only_behind_a_router_near_tie(comparison, monkeypatch):
    asked = request("segment", prompt=4, picture=0, temperature=1.5, max_tokens=9, seed=3)
    answer = comparison.expected(asked)
    wrong = [*answer.tokens[:-1], Token((answer.tokens[-1].id + 1) % 7 + 30)]
    other = Comparison(comparison.oracle, GRAMMARS)
    with pytest.raises(AssertionError):
        other.compare(asked, wrong, answer.finish_reason)
    replay = comparison.oracle.replay
    for gap, excused in ((2 * ROUTER_GAP, False), (ROUTER_GAP / 2, True)):
        monkeypatch.setattr(
            comparison.oracle,
            "replay",
            lambda *a, gap=gap: [dataclasses.replace(r, margin=np.float32(gap)) for r in replay(*a)],
        )
        if excused:
            other.compare(asked, wrong, answer.finish_reason)
        else:
            with pytest.raises(AssertionError):
                other.compare(asked, wrong, answer.finish_reason)
    assert len(other.near_ties) == 1


def test_the_router_gap_is_the_smallest_so_far(comparison):
    asked = request("text", prompt=6, max_tokens=6, temperature=1.5)
    predictions = comparison.oracle.replay(asked.prompt, None, comparison.expected(asked).tokens)
    gaps = np.array([prediction.margin for prediction in predictions])
    assert np.isfinite(gaps).all() and (gaps > 0).all() and (np.diff(gaps) <= 0).all()
