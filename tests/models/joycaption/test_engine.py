"""The engine answers as the oracle, whatever the company."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from jaxphoton.config import EngineConfig
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.request import Request
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.joycaption.checks.cases import Bench
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from jaxphoton.oracle.oracle import Oracle
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Prompt
from jaxphoton.verify.golden import open_golden
from jaxphoton.verify.report import Findings
from tests.engine.comparison import Comparison
from tests.engine.tiny import Loop, Poisoned, Schedule, at_once
from tests.models.joycaption.drawn import SMALL, drawn
from tests.models.llama.drawn import adapter_of

ENGINE = EngineConfig(
    max_rows=6,
    page_size=8,
    step_rows=(6,),
    prefill_rows=(3,),
    prefill_lengths=(40,),
    vision=((3, 3),),
    host_masks=False,
    adapter_slots=2,
    adapter_rank=4,
)


@pytest.fixture(scope="module")
def family():
    family = JoyCaptionFamily(SMALL)
    family.prefix_lengths = family.prefix_lengths[:1]
    return family


@pytest.fixture(scope="module")
def programs(family):
    return Programs(drawn(SMALL), family, ENGINE)


@pytest.fixture(scope="module")
def comparison(family, programs):
    return Comparison(Oracle(programs.params, family), family.grammars)


def pictures_of(family: JoyCaptionFamily) -> list[Prepared]:
    random = np.random.default_rng(1)
    drawn = [Image.fromarray(random.integers(0, 256, (20 + i, 31, 3), np.uint8)) for i in range(3)]
    return [Prepared(family.pictures.prepare(each), bytes([i]), (30, 30)) for i, each in enumerate(drawn)]


def adapters_of(family: JoyCaptionFamily) -> list[Adapter]:
    """Of all matrices, of attention alone, of MLPs alone; there is room for two."""
    shapes = family.tensors.adapters.shapes
    return [adapter_of(shapes, seed, 4 - seed, kept) for seed, kept in enumerate(("", "self_attn", "mlp"))]


@pytest.fixture(scope="module")
def pictures(family):
    return pictures_of(family)


@pytest.fixture(scope="module")
def adapters(family):
    return adapters_of(family)


def schedule(seed: int, pictures: list[Prepared], adapters: list[Adapter]) -> Schedule:
    """Requests of mixed lengths that come at any time, with the same few texts in front of the same few pictures, and
    with one of the adapters or none; every other schedule has so few pages that some must wait or are preempted."""
    random = np.random.default_rng(seed)
    due = []
    for _ in range(random.integers(1, 10)):
        before, behind = 11 * random.integers(2), random.integers(1, 37)
        ids, picture = random.integers(35, size=behind).tolist(), random.integers(-1, 3)
        how = Settings(temperature=random.choice([0.0, 0.8]), max_tokens=10, seed=int(random.integers(99)))
        words = Prompt(tuple(ids), before=tuple(range(20, 20 + int(before))))
        image = None if picture < 0 else pictures[picture]
        adapter = [*adapters, None][random.integers(4)]
        asked = Request(words, "text", how, image, adapter=adapter)
        due.append((int(random.integers(9)), asked))
    pages = 14 if seed % 2 else None
    return Schedule(tuple(sorted(due, key=lambda each: each[0])), depth=1 + seed // 2 % 2, rows=6, pages=pages)


def test_random_schedules_are_answered_as_by_the_oracle(programs, comparison, pictures, adapters, pytestconfig):
    loop, preemptions = Loop(programs, Device(Poisoned(programs))), 0
    for seed in range(max(8, pytestconfig.getoption("--schedules") // 35)):
        sequences, scheduler = loop.run(schedule(seed, pictures, adapters))
        preemptions += scheduler.preemptions
        for sequence in sequences:
            comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)
    assert not comparison.near_ties and preemptions > 0


def test_one_question_with_every_adapter_in_one_batch(programs, comparison, pictures, adapters):
    """Three adapters on two slots: what is kept of the picture is kept for each apart."""
    how = Settings(temperature=0.0, max_tokens=10, seed=0)
    asked = [Request(Prompt((5, 6), before=(21,)), "text", how, pictures[0], adapter=a) for a in (*adapters, None)]
    assert len({comparison.expected(one).tokens for one in asked}) == len(asked)
    sequences, _ = Loop(programs, Device(Poisoned(programs))).run(Schedule(at_once(*asked, *asked), rows=6))
    for sequence in sequences:
        comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)


@pytest.mark.slow  # in every run the engine is as the oracle above, and the oracle as recorded in test_goldens.py
def test_recorded_tokens(goldens, params, config):
    """Of the original, for prompts of several lengths at once; one ends by itself."""
    golden = next(model for model in open_golden(goldens) if model.name == "joycaption-tiny")
    family = JoyCaptionFamily(config)
    family.prefix_lengths = family.prefix_lengths[:1]
    bench = Bench(golden, params, family)
    cases = [golden.case(name) for name in ("stop", "two_turn", "no_system", "text_only")]
    asked, findings = [], Findings()
    for case in cases:
        picture = bench.image(case)
        prompt = bench.prompt(case["prompt"], picture, findings)
        image = None if picture is None else Prepared(picture.crops, bytes([case.facts["image"]]), (60, 60))
        how = Settings(temperature=0.0, max_tokens=len(case["tokens"]) + 1, seed=0)
        asked.append(Request(prompt, "text", how, image))
    few = {"max_rows": 4, "step_rows": (4,), "prefill_rows": (4,), "adapter_slots": 0}
    engine = dataclasses.replace(ENGINE, page_size=16, prefill_lengths=(64,), **few)
    sequences, _ = Loop(Programs(params, family, engine)).run(Schedule(at_once(*asked), rows=4))
    for case, sequence in zip(cases, sequences, strict=True):
        ids = case["tokens"].tolist()
        assert [token.id for token in sequence.tokens][: len(ids)] == ids
    assert sequences[0].finish_reason == "stop" and not findings.faults
