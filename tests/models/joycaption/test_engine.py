"""The engine answers as the oracle, whatever the company."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jaxphoton.config import EngineConfig
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.request import Request
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from jaxphoton.oracle.oracle import Oracle
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Prompt
from tests.engine.comparison import Comparison
from tests.engine.tiny import Loop, Poisoned, Schedule
from tests.models.joycaption.drawn import SMALL, drawn

ENGINE = EngineConfig(
    max_rows=6,
    page_size=8,
    step_rows=(6,),
    prefill_rows=(3,),
    prefill_lengths=(40,),
    vision=((3, 3),),
    host_masks=False,
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


@pytest.fixture(scope="module")
def pictures(family):
    random = np.random.default_rng(1)
    drawn = [Image.fromarray(random.integers(0, 256, (20 + i, 31, 3), np.uint8)) for i in range(3)]
    return [Prepared(family.pictures.prepare(each), bytes([i]), (30, 30)) for i, each in enumerate(drawn)]


def schedule(seed: int, pictures: list[Prepared]) -> Schedule:
    """Requests of mixed lengths that come at any time, with the same few texts in front of the same few pictures; every
    other schedule has so few pages that some must wait or are preempted."""
    random = np.random.default_rng(seed)
    due = []
    for _ in range(random.integers(1, 10)):
        before, behind = 11 * random.integers(2), random.integers(1, 37)
        ids, picture = random.integers(35, size=behind).tolist(), random.integers(-1, 3)
        how = Settings(temperature=random.choice([0.0, 0.8]), max_tokens=10, seed=int(random.integers(99)))
        words = Prompt(tuple(ids), before=tuple(range(20, 20 + int(before))))
        asked = Request(words, "text", how, None if picture < 0 else pictures[picture])
        due.append((int(random.integers(9)), asked))
    pages = 14 if seed % 2 else None
    return Schedule(tuple(sorted(due, key=lambda each: each[0])), depth=1 + seed // 2 % 2, rows=6, pages=pages)


def test_random_schedules_are_answered_as_by_the_oracle(programs, comparison, pictures, pytestconfig):
    loop, preemptions = Loop(programs, Device(Poisoned(programs))), 0
    for seed in range(max(8, pytestconfig.getoption("--schedules") // 35)):
        sequences, scheduler = loop.run(schedule(seed, pictures))
        preemptions += scheduler.preemptions
        for sequence in sequences:
            comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)
    assert not comparison.near_ties and preemptions > 0
