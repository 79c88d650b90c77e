"""Restricted rows on the fake device: forward now, sample later, with masks that know every committed token."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxphoton.constraints.automaton import pack_bits
from jaxphoton.engine.request import Request
from tests.engine.harness import GRAMMARS, VOCABULARY, Harness, answer, image, request


class Follow:
    """Allows nothing but the next id of a known answer: a mask built too early or too late forbids the right one."""

    def __init__(self, ids: tuple[int, ...]):
        self._ids, self._at = ids, 0

    def mask(self) -> np.ndarray:
        return pack_bits(np.arange(VOCABULARY) == self._ids[self._at])

    def accept(self, token: int) -> None:
        assert token == self._ids[self._at]
        self._at += 1


def restricted(asked: Request, stop: float) -> Request:
    ids, _ = answer(asked, asked.settings.max_tokens, stop)
    return dataclasses.replace(asked, constraint=lambda: Follow(ids))


def positions(harness: Harness) -> dict[tuple, int]:
    """When each launch was enqueued, sampled and fetched, by the device's log."""
    return {(entry[0], entry[1]): place for place, entry in enumerate(harness.device.log)}


@pytest.mark.parametrize("depth", [1, 2])
def test_forward_then_the_commit_before_it_then_sampling(depth):
    harness = Harness(depth, stop=0.0)
    sequences = [harness.submit(restricted(request(max_tokens=8, seed=1), 0.0))]
    sequences += [harness.submit(request(grammar, max_tokens=8, seed=2)) for grammar in ("detect", "text")]
    harness.run()
    at = positions(harness)
    steps = [number for name, number in at if name == "sample"]
    assert len(steps) >= 7
    for number in steps:
        assert at["launch", number] < at["sample", number] < at["fetch", number]
        assert at["fetch", number - 1] < at["sample", number]
        assert (at["launch", number] < at["fetch", number - 1]) == (depth == 2)
    for sequence in sequences:
        harness.check_answer(sequence)
    harness.check_clean()


def test_rows_without_a_mask_in_the_same_batch_get_all_ids():
    harness = Harness(stop=0.0)
    free = [
        harness.submit(request(grammar, max_tokens=9, seed=seed)) for seed, grammar in enumerate(["detect", "point"])
    ]
    harness.submit(restricted(request(max_tokens=9, seed=5), 0.0))
    harness.run()
    for sequence in free:
        harness.check_answer(sequence)


@pytest.mark.parametrize("number", range(150))
def test_random_mixes_of_restricted_and_free_rows(number):
    random = np.random.default_rng(number)
    faults = set(random.integers(0, 60, 2).tolist()) if number % 3 == 0 else ()
    harness = Harness(int(random.choice([1, 2])), pages=int(random.integers(24, 60)), stop=0.1, faults=faults)
    sequences = []
    for index in range(int(random.integers(2, 9))):
        picture = image(int(random.integers(3))) if random.random() < 0.5 else None
        most, length = int(random.integers(1, 14)), int(random.integers(1, 20))
        asked = request(str(random.choice(list(GRAMMARS))), length, picture, most, seed=number * 10 + index)
        sequences.append(harness.submit(restricted(asked, 0.1) if random.random() < 0.5 else asked))
        harness.tick(int(random.integers(0, 4)))
        if random.random() < 0.15:
            harness.cancel(sequences[int(random.integers(len(sequences)))])
    harness.run()
    for sequence in sequences:
        harness.check_answer(sequence)
    harness.check_clean()
