"""The order of launches and commits, on a device that completes when the test says so."""

from __future__ import annotations

import pytest

from jaxphoton.engine.pipeline import DeviceError
from tests.engine.harness import Harness, image, request

GRAMMARS = ("text", "reasoning", "detect", "point")


def launches(harness: Harness) -> list[tuple]:
    return [entry for entry in harness.device.log if entry[0] == "launch"]


def fetches(harness: Harness) -> list[tuple]:
    return [entry for entry in harness.device.log if entry[0] == "fetch"]


def run_one(depth: int = 2, stop: float = 0.0, **settings) -> Harness:
    harness = Harness(depth, stop=stop)
    sequence = harness.submit(request(**settings))
    harness.run()
    harness.check_answer(sequence)
    harness.check_clean()
    return harness


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_at_depth_2_the_next_step_is_launched_before_the_last_one_is_committed(grammar):
    harness = run_one(grammar=grammar, max_tokens=9)
    for number in range(8):
        assert harness.events.index(("launch", number + 1)) < harness.events.index(("commit_begin", number))


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_at_depth_1_nothing_is_launched_before_the_last_commit_has_ended(grammar):
    harness = run_one(depth=1, grammar=grammar, max_tokens=9)
    assert harness.events == [(name, i) for i in range(9) for name in ("launch", "commit_begin", "commit_end")]


@pytest.mark.parametrize("depth", [1, 2])
def test_every_launch_is_fetched_once_and_committed_in_order(depth):
    harness = Harness(depth)
    sequences = [harness.submit(request(grammar, seed=seed)) for seed, grammar in enumerate(GRAMMARS * 2)]
    harness.run()
    count = len(launches(harness))
    assert [number for _, number, *_ in fetches(harness)] == list(range(count))
    assert [number for name, number in harness.events if name == "commit_begin"] == list(range(count))
    for sequence in sequences:
        harness.check_answer(sequence)


def test_the_device_has_more_to_do_whenever_the_host_waits():
    harness = run_one(max_tokens=20)
    assert all(blocked for _, _, blocked, _ in fetches(harness))  # the test let nothing complete by itself
    assert [behind for *_, behind in fetches(harness)] == [1] * 19 + [0]


def test_the_host_does_not_wait_for_what_has_completed():
    harness = Harness(stop=0.0)
    harness.submit(request(max_tokens=10))
    for _ in harness.until_idle():
        harness.device.complete(2)
    assert [blocked for _, _, blocked, _ in fetches(harness)] == [False] * 10


def test_the_pipeline_never_holds_more_launches_than_its_depth():
    for depth in (1, 2):
        harness = Harness(depth)
        for seed in range(6):
            harness.submit(request(seed=seed))
        harness.run()
        assert max(behind + 1 for *_, behind in fetches(harness)) == depth


def test_a_row_may_decode_before_its_first_token_is_committed():
    harness = Harness(stop=0.0)
    sequence = harness.submit(request(max_tokens=5))
    harness.tick()
    assert [launch.kind for launch in harness.launches] == ["prefill"] and sequence.tokens == []
    harness.pipeline._launch()
    assert [launch.kind for launch in harness.launches] == ["prefill", "step"] and sequence.tokens == []
    assert sequence.inflight_refs == 2
    harness.run()
    harness.check_answer(sequence)


def test_a_first_token_that_stops_leaves_a_zombie_that_changes_nothing():
    harness = Harness(stop=1.0)
    sequence = harness.submit(request(picture=image(1)))
    harness.tick(2)  # prefill and step launched, prefill committed
    assert sequence.finish_reason == "stop" and harness.finished == [sequence]
    assert sequence.inflight_refs == 1 and len(harness.pipeline.in_flight) == 1
    assert sequence.row is not None and sequence.pages and not harness.pipeline.idle
    assert harness.scheduler.prefixes.users(sequence.prefix) == 1
    harness.tick()
    assert sequence.row is None and not sequence.page_table and harness.pipeline.idle
    assert harness.scheduler.prefixes.users(sequence.prefix) == 0
    assert harness.finished == [sequence] and len(sequence.tokens) == 1
    harness.check_clean()


def test_at_depth_1_a_finished_sequence_is_released_at_once_and_once():
    harness = Harness(1, stop=1.0)
    sequence = harness.submit(request(picture=image(1)))
    harness.tick()
    assert harness.finished == [sequence] and sequence.row is None and harness.pipeline.idle
    assert sequence.prefix in harness.scheduler.prefixes  # the prefix stays for the next question
    harness.check_clean()


@pytest.mark.parametrize("most", range(1, 7))
def test_sequences_that_end_by_length_never_make_zombies(most):
    harness = Harness(stop=0.0)
    sequences = [harness.submit(request(grammar, max_tokens=most)) for grammar in GRAMMARS]
    harness.run()
    assert sum(len(launch.owners) for launch in harness.launches) == sum(len(s.tokens) for s in sequences) == 4 * most


def test_sequences_that_end_by_their_objects_make_one_zombie():
    harness = run_one(grammar="detect", max_objects=2, max_tokens=50)
    assert len(harness.launches) == 7 and len(harness.finished[0].tokens) == 6
    assert harness.finished[0].finish_reason == "length"


def test_a_finished_sequence_is_not_launched_again():
    harness = Harness(stop=0.4, rows=4)
    for seed in range(12):
        harness.submit(request(seed=seed))
    ended, seen = set(), 0
    for _ in harness.until_idle():
        assert not any(ended.intersection(launch.owners) for launch in harness.launches[seen:])
        seen = len(harness.launches)
        ended.update(harness.finished)
    assert len(ended) >= 11
    harness.check_clean()


def test_the_last_zombie_keeps_the_pipeline_at_work_until_it_is_committed():
    harness = Harness(stop=1.0)
    harness.submit(request())
    harness.tick(2)
    assert not harness.scheduler.running and harness.scheduler.has_work and not harness.pipeline.idle
    harness.tick()
    assert not harness.scheduler.has_work and harness.pipeline.idle


def test_a_prefill_takes_either_slot_while_a_step_is_uncommitted():
    slots = set()
    for ticks in range(3, 9):
        harness = Harness(stop=0.0)
        harness.submit(request(max_tokens=20))
        harness.tick(ticks)
        late = harness.submit(request(seed=2))
        (under_way,) = harness.device.under_way
        assert under_way.kind == "step"
        harness.pipeline._launch()
        assert harness.launches[-1].kind == "prefill" and len(harness.device.under_way) == 2
        slots.add(harness.launches[-1].number % 2)  # launches alternate between the slots
        harness.run()
        harness.check_answer(late)
    assert slots == {0, 1}


def test_tokens_are_credited_to_those_who_were_launched():
    # Three rows, ten requests: lines and rows change hands all the time.
    harness = Harness(rows=3, stop=0.3)
    sequences = [harness.submit(request(GRAMMARS[seed % 4], seed=seed)) for seed in range(10)]
    seen = []
    for _ in harness.until_idle():
        seen += [
            (launch, launch.owners, tuple(s.row for s in launch.owners)) for launch in harness.launches[len(seen) :]
        ]
    assert len({rows for _, _, rows in seen}) > 3
    for launch, owners, _ in seen:
        assert launch.owners == owners
    for sequence in sequences:
        harness.check_answer(sequence)
    harness.check_clean()


def test_a_row_has_a_new_owner_only_after_the_last_commit_of_the_old_one():
    harness = Harness(rows=1, stop=1.0)
    first, second = harness.submit(request(seed=1)), harness.submit(request(seed=2))
    harness.tick(2)
    assert first.finalized and second.row is None  # the zombie still holds the row
    harness.run()
    log = [entry[:2] for entry in harness.device.log if entry[0] != "complete"]
    assert log.index(("fetch", 1)) < log.index(("launch", 2))
    harness.check_answer(second)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("ticks", range(12))
def test_a_sequence_may_be_cancelled_at_any_moment(depth, ticks):
    harness = Harness(depth, rows=2, stop=0.0)
    victim = harness.submit(request("detect", picture=image(1), max_tokens=9))
    other = harness.submit(request(picture=image(1), seed=2, max_tokens=12))
    later = harness.submit(request(seed=3))
    harness.tick(ticks)
    harness.cancel(victim)
    tokens = len(victim.tokens)
    harness.run()
    assert len(victim.tokens) == tokens
    for sequence in (victim, other, later):
        harness.check_answer(sequence)
    harness.check_clean()


def test_a_listener_may_give_its_sequence_up():
    harness = Harness(stop=0.0)
    sequence, other = harness.submit(request(max_tokens=9)), harness.submit(request(max_tokens=9, seed=2))

    def stop_at_three(heard) -> None:
        if heard is sequence and len(heard.tokens) == 3:
            harness.scheduler.finalize(heard)

    harness.pipeline._on_token = stop_at_three
    harness.run()
    assert len(sequence.tokens) == 3 and harness.finished == [sequence, other] and len(other.tokens) == 9
    harness.check_clean()


def test_a_sequence_is_finished_after_its_commit_and_only_once():
    harness = Harness(stop=0.3)
    sequences = [harness.submit(request(seed=seed)) for seed in range(6)]
    states: list[tuple] = []
    harness.pipeline._on_finish = lambda s: states.append((s, len(harness.pipeline.in_flight), harness.events[-1][0]))
    harness.run()
    assert {s for s, *_ in states} == set(sequences) and len(states) == 6
    assert all(event == "commit_end" for *_, event in states)


def test_when_the_pool_is_dry_everything_is_committed_before_anybody_is_set_back():
    harness = Harness(rows=2, pages=9, stop=0.0)
    sequences = [harness.submit(request(prompt=7, max_tokens=20, seed=seed)) for seed in range(2)]
    for _ in harness.until_idle():
        if harness.scheduler.preemptions:
            break
    # The step that set one back was launched with nothing under way; the two before it were read one after the other.
    log = [entry[0] for entry in harness.device.log if entry[0] != "complete"]
    last = len(log) - 1 - log[::-1].index("launch")
    assert log[last - 2 : last] == ["fetch", "fetch"]
    harness.run()
    for sequence in sequences:
        harness.check_answer(sequence)
    harness.check_clean()


def test_a_launch_that_raises_leaves_references_and_slots_as_they_were():
    harness = Harness(stop=0.0)
    sequence = harness.submit(request(max_tokens=9))
    harness.tick(3)
    state = (sequence.inflight_refs, len(harness.pipeline.in_flight), len(sequence.tokens))

    def fail(name: str, number: int) -> None:
        harness.device.fail = lambda name, number: None
        raise OSError("no such launch")

    harness.device.fail = fail
    with pytest.raises(DeviceError, match="no such launch"):
        harness.pipeline.tick()
    assert state == (sequence.inflight_refs, len(harness.pipeline.in_flight), len(sequence.tokens))
    harness.run()
    harness.check_answer(sequence)


def test_a_commit_that_fails_keeps_references_and_tokens():
    harness = Harness(stop=0.0)
    sequence = harness.submit(request(max_tokens=9))
    harness.tick(3)

    def fail(name: str, number: int) -> None:
        if name == "fetch":
            raise OSError("lost")

    harness.device.fail = fail
    refs, tokens = sequence.inflight_refs, len(sequence.tokens)
    with pytest.raises(DeviceError, match="lost"):
        harness.tick()
    assert (sequence.inflight_refs, len(sequence.tokens)) == (refs + 1, tokens)  # one more was launched meanwhile
    assert sequence.row is not None and not harness.finished
