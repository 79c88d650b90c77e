"""The engine answers as the oracle, whatever the company and however many pictures; the quick tests of it are those of
test_model, in which it answers as the original."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jaxphoton.config import EngineConfig
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.request import Request
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.smolvlm.family import SmolVLMFamily
from jaxphoton.oracle.oracle import Oracle
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Prompt
from tests.engine.comparison import Comparison
from tests.engine.tiny import Loop, Poisoned, Schedule
from tests.models.smolvlm.drawn import SMALL, drawn

ENGINE = EngineConfig(
    max_rows=6,
    page_size=8,
    step_rows=(6,),
    prefill_rows=(3,),
    prefill_lengths=(40,),
    vision=((3, 15),),
    host_masks=False,
)
MARKS = ((9,), (10,))
SIZES = ((9, 31), (40, 11), (20, 21))  # 1 x 2, 2 x 1 and 2 x 2 tiles
FRONT = 15  # ids in front of the first picture that the one prefix length has room for beside BOS


@pytest.fixture(scope="module")
def family():
    family = SmolVLMFamily(SMALL)
    family.prefix_lengths = (1 + FRONT + 34,)
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
    drawn = [Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)) for size in SIZES]
    return [Prepared(family.pictures.prepare(each), bytes([i]), SIZES[i]) for i, each in enumerate(drawn)]


def asked(random: np.random.Generator, pictures: list[Prepared]) -> Request:
    """Of mixed length, with up to three pictures: few texts stand in front of the first, and it is one of few."""
    before = tuple(range(20, 20 + random.choice([0, 5, FRONT])))
    ids = tuple(random.integers(28, size=random.integers(1, 60)).tolist())
    image = None if random.random() < 0.3 else pictures[random.integers(3)]
    further = [pictures[random.integers(3)] for _ in range(random.choice([0, 0, 1, 2]) if len(ids) < 37 else 0)]
    places = tuple(sorted(random.integers(len(ids), size=len(further)).tolist()))
    alone = (27, *ids) if image is None and not further else None
    how = Settings(temperature=random.choice([0.0, 0.8]), max_tokens=10, seed=int(random.integers(99)))
    prompt = Prompt(ids, before=before, pictures=places, alone=alone, marks=MARKS)
    return Request(prompt, "text", how, image, further=tuple(further))


def schedule(seed: int, pictures: list[Prepared]) -> Schedule:
    """Requests that come at any time; every other schedule has so few pages that some must wait or are preempted."""
    random = np.random.default_rng(seed)
    due = [(int(random.integers(9)), asked(random, pictures)) for _ in range(random.integers(1, 9))]
    pages = 24 if seed % 2 else None
    return Schedule(tuple(sorted(due, key=lambda each: each[0])), depth=1 + seed // 2 % 2, rows=6, pages=pages)


def compare(programs, comparison, schedules) -> int:
    """How many were preempted."""
    loop, preemptions = Loop(programs, Device(Poisoned(programs))), 0
    for each in schedules:
        sequences, scheduler = loop.run(each)
        preemptions += scheduler.preemptions
        for sequence in sequences:
            comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)
    assert not comparison.near_ties
    return preemptions


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2])
def test_pictures_before_and_behind_text_are_answered_as_by_the_oracle(programs, comparison, pictures, depth):
    wide, square = pictures[0], pictures[2]
    greedy, words = Settings(temperature=0.0, max_tokens=10, seed=0), tuple(range(2, 27))
    about = [
        Request(Prompt(words[:9], marks=MARKS, alone=words[:10]), "text", greedy),
        Request(Prompt(words[:9], marks=MARKS), "text", greedy, wide),
        Request(Prompt(words[:20], marks=MARKS), "text", greedy, wide),
        Request(Prompt(words, before=words[5:20], marks=MARKS), "text", greedy, wide),
        Request(Prompt(words, pictures=(7,), marks=MARKS), "text", greedy, wide, further=(square,)),
    ]
    assert [len(picture.crops.pixels) for picture in pictures] == [3, 3, 5]
    arrivals = tuple((index // 2, request) for index, request in enumerate(about))
    assert compare(programs, comparison, [Schedule(arrivals, depth=depth, rows=6, pages=13)]) > 0


@pytest.mark.slow
def test_random_schedules_are_answered_as_by_the_oracle(programs, comparison, pictures, pytestconfig):
    count = max(8, pytestconfig.getoption("--schedules") // 35)
    assert compare(programs, comparison, (schedule(seed, pictures) for seed in range(count))) > 0
