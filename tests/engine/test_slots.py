"""How launches go through the pipeline: how many are under way, and in which order they end."""

from __future__ import annotations

import pytest

from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.engine.pipeline import Launch, Pipeline
from tests.engine.rig import READOUT, Rig, request

pytestmark = pytest.mark.smoke


def busy(depth: int = 2, **rules) -> Rig:
    """A rig with a request that runs for ten tokens."""
    rig = Rig(depth, stop=0.0, **rules)
    rig.submit(request(max_tokens=10))
    return rig


def launch(rig: Rig) -> Launch:
    made, drain = rig.pipeline._launch()
    assert made is not None and not drain
    return made


def numbers(rig: Rig) -> list[int]:
    return [each.number for each in rig.pipeline.in_flight]


def measured(rig: Rig) -> list[LaunchMetrics]:
    """All launches of a rig, run to its end."""
    told: list[LaunchMetrics] = []
    rig.pipeline._on_metrics = told.append
    rig.run()
    return told


def test_a_new_pipeline_has_nothing_under_way_and_room_for_two():
    rig = busy()
    assert not rig.pipeline.in_flight
    assert [launch(rig).number, launch(rig).number] == [0, 1] == numbers(rig)


@pytest.mark.parametrize("depth", [-1, 0, 3])
def test_only_one_or_two_launches_may_be_under_way(depth):
    rig = Rig()
    with pytest.raises(ValueError, match=f"must be 1 .* or 2 .* got {depth}"):
        Pipeline(rig.device, rig.scheduler, READOUT, depth, lambda sequence: None)


def test_depth_one_has_room_for_one():
    rig = busy(1)
    launch(rig)
    assert rig.pipeline._launch() == (None, False) and numbers(rig) == [0]
    rig.pipeline.commit_oldest()
    assert launch(rig).number == 1


@pytest.mark.parametrize("depth", [1, 2])
def test_nothing_is_enqueued_while_as_many_are_under_way_as_may_be(depth):
    rig = busy(depth)
    for _ in range(depth):
        launch(rig)
    before = list(rig.device.log)
    assert rig.pipeline._launch() == (None, False)
    assert rig.device.log == before and len(rig.pipeline.in_flight) == depth


def test_nothing_is_enqueued_while_a_launch_is_committed():
    rig, seen = busy(), []
    rig.pipeline._on_event = lambda name, each: seen.append((name, each.number))
    rig.run()
    for place, (name, number) in enumerate(seen):
        if name == "commit_begin":
            assert seen[place + 1] == ("commit_end", number)


def test_a_launch_keeps_its_control_and_output_until_its_commit_has_ended():
    rig, kept = busy(), []

    def look(name: str, each: Launch) -> None:
        if name == "commit_end":
            kept.append(each.control is not None and each.output.number == each.number)

    rig.pipeline._on_event = look
    rig.run()
    assert kept and all(kept)


def test_with_nothing_under_way_there_is_nothing_to_commit():
    with pytest.raises(IndexError):
        busy().pipeline.commit_oldest()


def test_launches_are_committed_oldest_first():
    rig = busy()
    launch(rig), launch(rig)
    rig.pipeline.commit_oldest()
    assert numbers(rig) == [1] and launch(rig).number == 2
    rig.pipeline.commit_oldest(), rig.pipeline.commit_oldest()
    assert [entry[1] for entry in rig.device.log if entry[0] == "fetch"] == [0, 1, 2]


def test_in_flight_counts_launches_that_no_commit_has_begun_to_read():
    rig, counts = busy(), []
    rig.pipeline._on_event = lambda name, each: counts.append((name, len(rig.pipeline.in_flight)))
    launch(rig), launch(rig)
    rig.pipeline.commit_oldest()
    assert counts == [("launch", 1), ("launch", 2), ("commit_begin", 1), ("commit_end", 1)]


def test_a_pipeline_is_idle_only_when_nothing_is_under_way_nor_waits():
    rig = busy()
    assert not rig.pipeline.idle
    launch(rig)
    assert not rig.pipeline.idle
    rig.run()
    assert rig.pipeline.idle and not rig.pipeline.in_flight


@pytest.mark.parametrize("depth", [1, 2])
def test_launches_alternate_between_as_many_slots_as_the_depth(depth):
    slots = [each.slot for each in measured(busy(depth))]
    assert slots == [number % depth for number in range(10)]


def test_launches_under_way_together_have_slots_of_their_own():
    rig, under_way = Rig(), []
    for seed in range(6):
        rig.submit(request(seed=seed))
    rig.pipeline._on_event = lambda name, each: under_way.append(numbers(rig))
    slots = {each.number: each.slot for each in measured(rig)}
    assert any(len(together) == 2 for together in under_way)
    assert all(len({slots[number] for number in together}) == len(together) for together in under_way)


def test_after_a_device_error_everything_under_way_is_dropped():
    rig = busy()
    launch(rig), launch(rig)
    lost = rig.pipeline.start_over()
    assert not rig.pipeline.in_flight and not rig.device.under_way
    assert [sequence.inflight_refs for sequence in lost] == [0] and rig.scheduler.waiting == lost
    rig.run()
    rig.check_answer(lost[0])


def test_a_control_array_goes_up_once_for_each_launch():
    rig = busy()
    first, second = launch(rig), launch(rig)
    assert first.control is not second.control
