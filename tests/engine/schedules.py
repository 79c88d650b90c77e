"""Random schedules by number: the same number is the same schedule everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence as Many

import numpy as np

from jaxphoton.engine.request import Request
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.moondream.prompts import Prompt
from tests.engine.tiny import CONFIG, Schedule, pictures, request, sequence_of

KINDS = {"text": 0.3, "reasoning": 0.2, "detect": 0.25, "point": 0.25}


def schedule(
    number: int,
    kinds: Mapping[str, float] = KINDS,
    adapters: Many[Adapter | None] = (None,),
    several: float = 0.0,
) -> Schedule:
    """One to six requests, some about shared images, some cancelled, in a pool that is often too small.

    `kinds` are grammars and how often each is drawn; `several` is how often a request has further pictures. Every
    request has one of `adapters`.
    """
    chosen = np.random.default_rng((number, 1))
    random = np.random.default_rng(number)
    arrivals: list[tuple[int, Request]] = []
    cancels: dict[int, int] = {}
    tick = 0
    for index in range(int(random.integers(1, 7))):
        adapter = adapters[int(chosen.integers(len(adapters)))]
        drawn = dataclasses.replace(_request(random, arrivals, kinds), adapter=adapter)
        arrivals.append((tick, _with_further(random, drawn) if several and random.random() < several else drawn))
        if random.random() < 0.2:
            cancels[index] = tick + int(random.integers(0, 12))
        tick += int(random.integers(0, 4)) * int(random.random() < 0.6)
    queued = [sequence_of(request) for _, request in arrivals]
    need = max(s.prefix_page_count + s.pages_for(s.prompt_length + s.max_tokens - 1) for s in queued)
    spare = random.choice([0, 1, 2, 4, 8, 200], p=[0.2, 0.2, 0.15, 0.15, 0.15, 0.15])
    return Schedule(
        tuple(arrivals),
        cancels,
        depth=int(random.choice([1, 2, 2])),
        rows=int(random.integers(1, 9)),
        pages=1 + int(need + spare),
        prefill_rows=int(random.integers(1, 4)),
        share=bool(random.random() < 0.8),
    )


def _request(random: np.random.Generator, earlier: list[tuple[int, Request]], kinds: Mapping[str, float]) -> Request:
    if earlier and random.random() < 0.1:
        return _again(earlier[int(random.integers(len(earlier)))][1])
    long = random.random() < 0.25
    return request(
        str(random.choice(list(kinds), p=list(kinds.values()))),
        _prompt(random, int(random.integers(9, 45) if long else random.integers(1, 9))),
        int(random.integers(3)) if random.random() < 0.65 else None,
        max_tokens=int(random.integers(1, 40) if random.random() < 0.5 else random.integers(1, 12)),
        max_objects=int(random.integers(1, 6)),
        temperature=float(random.choice([0.0, 0.7, 1.5])),
        top_p=float(random.choice([1.0, round(random.uniform(0.3, 1.0), 3)])),
        seed=int(random.integers(2**32)),
    )


def _again(old: Request) -> Request:
    """The same question once more, as another request."""
    return Request(old.prompt, old.grammar, old.settings, old.image, further=old.further)


def _with_further(random: np.random.Generator, old: Request) -> Request:
    """The same with one or two pictures anywhere among its ids, the first of them and two in one place included."""
    count = int(random.integers(1, 3))
    room = old.prompt.ids[: max(1, CONFIG.text.max_context - 3 * CONFIG.vision.image_tokens - 8)]
    values = tuple((place, value) for place, value in old.prompt.values if place < len(room))
    places = sorted(random.integers(0, len(room), count).tolist())
    prompt = Prompt(room, values, pictures=tuple(places))
    further = tuple(pictures()[int(random.integers(3))] for _ in places)
    return dataclasses.replace(old, prompt=prompt, further=further)


def _prompt(random: np.random.Generator, length: int) -> Prompt:
    """Any ids; now and then a point or a box among them."""
    ids = random.integers(0, CONFIG.text.vocab_size, length)
    values = []
    if random.random() < 0.2:
        place = int(random.integers(length))
        values.append((place, tuple(random.random(int(random.integers(1, 3))).round(3).tolist())))
    return Prompt(tuple(ids.tolist()), tuple(values))
