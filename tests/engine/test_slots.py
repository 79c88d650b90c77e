"""How launches go through the pipeline: how many are under way, and in which order they end."""

from __future__ import annotations

import pytest

from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.engine.pipeline import Launch, Pipeline
from tests.engine.harness import READOUT, Harness, request

pytestmark = pytest.mark.smoke


def busy(depth: int = 2, **rules) -> Harness:
    """A harness with a request that runs for ten tokens."""
    harness = Harness(depth, stop=0.0, **rules)
    harness.submit(request(max_tokens=10))
    return harness


def launch(harness: Harness) -> Launch:
    made, drain = harness.pipeline._launch()
    assert made is not None and not drain
    return made


def numbers(harness: Harness) -> list[int]:
    return [each.number for each in harness.pipeline.in_flight]


def measured(harness: Harness) -> list[LaunchMetrics]:
    """All launches of a harness, run to its end."""
    told: list[LaunchMetrics] = []
    harness.pipeline._on_metrics = told.append
    harness.run()
    return told


def test_a_new_pipeline_has_nothing_under_way_and_room_for_two():
    harness = busy()
    assert not harness.pipeline.in_flight
    assert [launch(harness).number, launch(harness).number] == [0, 1] == numbers(harness)


@pytest.mark.parametrize("depth", [-1, 0, 3])
def test_only_one_or_two_launches_may_be_under_way(depth):
    harness = Harness()
    with pytest.raises(ValueError, match=f"must be 1 .* or 2 .* got {depth}"):
        Pipeline(harness.device, harness.scheduler, READOUT, depth, lambda sequence: None)


def test_depth_one_has_room_for_one():
    harness = busy(1)
    launch(harness)
    assert harness.pipeline._launch() == (None, False) and numbers(harness) == [0]
    harness.pipeline.commit_oldest()
    assert launch(harness).number == 1


@pytest.mark.parametrize("depth", [1, 2])
def test_nothing_is_enqueued_while_as_many_are_under_way_as_may_be(depth):
    harness = busy(depth)
    for _ in range(depth):
        launch(harness)
    before = list(harness.device.log)
    assert harness.pipeline._launch() == (None, False)
    assert harness.device.log == before and len(harness.pipeline.in_flight) == depth


def test_nothing_is_enqueued_while_a_launch_is_committed():
    harness, seen = busy(), []
    harness.pipeline._on_event = lambda name, each: seen.append((name, each.number))
    harness.run()
    for place, (name, number) in enumerate(seen):
        if name == "commit_begin":
            assert seen[place + 1] == ("commit_end", number)


def test_a_launch_keeps_its_control_and_output_until_its_commit_has_ended():
    harness, kept = busy(), []

    def look(name: str, each: Launch) -> None:
        if name == "commit_end":
            kept.append(each.control is not None and each.output.number == each.number)

    harness.pipeline._on_event = look
    harness.run()
    assert kept and all(kept)


def test_with_nothing_under_way_there_is_nothing_to_commit():
    with pytest.raises(IndexError):
        busy().pipeline.commit_oldest()


def test_launches_are_committed_oldest_first():
    harness = busy()
    launch(harness), launch(harness)
    harness.pipeline.commit_oldest()
    assert numbers(harness) == [1] and launch(harness).number == 2
    harness.pipeline.commit_oldest(), harness.pipeline.commit_oldest()
    assert [entry[1] for entry in harness.device.log if entry[0] == "fetch"] == [0, 1, 2]


def test_in_flight_counts_launches_that_no_commit_has_begun_to_read():
    harness, counts = busy(), []
    harness.pipeline._on_event = lambda name, each: counts.append((name, len(harness.pipeline.in_flight)))
    launch(harness), launch(harness)
    harness.pipeline.commit_oldest()
    assert counts == [("launch", 1), ("launch", 2), ("commit_begin", 1), ("commit_end", 1)]


def test_a_pipeline_is_idle_only_when_nothing_is_under_way_nor_waits():
    harness = busy()
    assert not harness.pipeline.idle
    launch(harness)
    assert not harness.pipeline.idle
    harness.run()
    assert harness.pipeline.idle and not harness.pipeline.in_flight


@pytest.mark.parametrize("depth", [1, 2])
def test_launches_alternate_between_as_many_slots_as_the_depth(depth):
    slots = [each.slot for each in measured(busy(depth))]
    assert slots == [number % depth for number in range(10)]


def test_launches_under_way_together_have_slots_of_their_own():
    harness, under_way = Harness(), []
    for seed in range(6):
        harness.submit(request(seed=seed))
    harness.pipeline._on_event = lambda name, each: under_way.append(numbers(harness))
    slots = {each.number: each.slot for each in measured(harness)}
    assert any(len(together) == 2 for together in under_way)
    assert all(len({slots[number] for number in together}) == len(together) for together in under_way)


def test_after_a_device_error_everything_under_way_is_dropped():
    harness = busy()
    launch(harness), launch(harness)
    lost = harness.pipeline.start_over()
    assert not harness.pipeline.in_flight and not harness.device.under_way
    assert [sequence.inflight_refs for sequence in lost] == [0] and harness.scheduler.waiting == lost
    harness.run()
    harness.check_answer(lost[0])


def test_a_control_array_goes_up_once_for_each_launch():
    harness = busy()
    first, second = launch(harness), launch(harness)
    assert first.control is not second.control
