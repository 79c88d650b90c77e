"""Whatever else runs, a request gets what the oracle would give it alone (up to ties that rounding decides).

`--schedules N` runs schedules 0 to N - 1, `--first-schedule K` leaves out those before K.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from jaxphoton.engine.device import Device
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Generation, Token
from tests.engine.comparison import Comparison, check_choice
from tests.engine.schedules import schedule
from tests.engine.tiny import Loop, Poisoned, Schedule, at_once, one_image, request

PROGRESS = 1000  # schedules between two lines of it
RESET = 10  # schedules that run in what earlier ones have left in the pages


@pytest.fixture(scope="module")
def device(programs) -> Device:
    """Its pages begin as NaN and are NaN again after a reset."""
    return Device(Poisoned(programs))


@pytest.fixture(scope="module")
def comparison(oracle) -> Comparison:
    return Comparison(oracle)


def run_and_compare(loop: Loop, comparison: Comparison, plan: Schedule) -> int:
    """Compares every request of a schedule; returns how often one was set back."""
    sequences, scheduler = loop.run(plan)
    for index, sequence in enumerate(sequences):
        assert sequence.finish_reason is not None or index in plan.cancels
        comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)
    return scheduler.preemptions


def run_schedules(loop: Loop, comparison: Comparison, numbers: Iterable[int], *options) -> int:
    """The same of several schedules, with what `schedule` takes beside their numbers."""
    set_back = 0
    for number in numbers:
        try:
            set_back += run_and_compare(loop, comparison, schedule(number, *options))
        except BaseException as error:
            error.add_note(f"schedule {number}")
            raise
    assert len(comparison.near_ties) <= max(1, comparison.compared // 1000), comparison.near_ties
    return set_back


@pytest.mark.parametrize("kind", ["", "several pictures", "encoded ahead"])
def test_random_schedules_give_what_the_oracle_gives(programs, device, comparison, pytestconfig, capsys, kind):
    first, count = pytestconfig.getoption("--first-schedule"), pytestconfig.getoption("--schedules")
    if kind == "encoded ahead":
        programs = one_image(programs)
        device = Device(Poisoned(programs))
    loop, set_back, several = Loop(programs, device), 0, 0.5 if kind == "several pictures" else 0.0
    compared, step = comparison.compared, 6 if kind else 1
    for number in range(first, count, step):
        if number % RESET == 0:
            device.reset()
        try:
            set_back += run_and_compare(loop, comparison, schedule(number, several=several))
        except BaseException as error:
            error.add_note(f"schedule {number}: again with --first-schedule {number} --schedules {number + 1}")
            raise
        if (number + 1) % PROGRESS == 0:
            with capsys.disabled():
                print(
                    f"\n{number + 1} schedules, {comparison.compared} requests, {len(comparison.near_ties)} near ties",
                    end="",
                )
    with capsys.disabled():
        print(
            f"\n{len(range(first, count, step))} schedules, {comparison.compared - compared} requests,"
            f" {set_back} set back; not exactly the oracle's: {len(comparison.near_ties)}"
        )
    assert len(comparison.near_ties) <= max(1, comparison.compared // 1000), comparison.near_ties
    assert set_back > 0 or count - first < 100, "the schedules never set a sequence back"
    if kind == "encoded ahead":
        device.close()  # ends its thread


def test_a_context_filled_to_its_last_position(programs, device, comparison):
    full = request(prompt=70, max_tokens=99, temperature=1.5)
    with_image = request(prompt=80, picture=1, max_tokens=99, temperature=1.5)
    run_and_compare(Loop(programs, device), comparison, Schedule(at_once(full, with_image)))
    assert len(comparison.expected(with_image).tokens) <= 96 - 10 - 80


@pytest.mark.parametrize("depth", [1, 2])
def test_more_requests_than_rows(programs, device, comparison, depth):
    requests = [
        request(grammar, 3 + seed, seed % 4 if seed % 4 < 3 else None, seed=seed, temperature=1.5, max_tokens=12)
        for seed, grammar in enumerate(["text", "detect", "reasoning", "point"] * 6)
    ]
    run_and_compare(Loop(programs, device), comparison, Schedule(at_once(*requests), depth=depth))


# The comparison is only worth something if it condemns.


def changed(tokens: tuple[Token, ...], index: int, **changes) -> list[Token]:
    fields = {name: getattr(tokens[index], name) for name in ("id", "bins", "value", "logprob")}
    return [*tokens[:index], Token(**{**fields, **changes}), *tokens[index + 1 :]]


@pytest.fixture
def answered(comparison) -> tuple:
    asked = request("point", prompt=4, picture=0, temperature=1.5, max_tokens=9, seed=3)
    answer: Generation = comparison.expected(asked)
    assert len(answer.tokens) > 2
    return asked, answer


@pytest.mark.parametrize(
    "changes", [{"id": 6}, {"id": 0}, {"bins": (1,)}, {"logprob": 0.5}, {"logprob": -0.3}], ids=str
)
def test_a_wrong_token_is_refused(comparison, answered, changes):
    asked, answer = answered
    with pytest.raises(AssertionError):
        comparison.compare(asked, changed(answer.tokens, 1, **changes), answer.finish_reason)


def test_a_wrong_ending_is_refused(comparison, answered):
    asked, answer = answered
    for tokens, finish in ((answer.tokens[:-1], answer.finish_reason), (answer.tokens, "stop")):
        if (tokens, finish) != (answer.tokens, answer.finish_reason):
            with pytest.raises(AssertionError):
                comparison.compare(asked, list(tokens), finish)


def test_a_choice_short_of_the_best_is_refused_and_a_near_tie_is_not():
    logits = np.array([1.0, 1.0 - 5e-5, 0.5], np.float32)
    greedy = Settings(temperature=0.0)
    check_choice(1, logits, greedy, 0, 0)
    with pytest.raises(AssertionError, match="short of the best"):
        check_choice(2, logits, greedy, 0, 0)
