"""Traces keep the format's rules, tell the truth about order, and cost nothing when off."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.engine.pipeline import Pipeline
from jaxphoton.image.crops import Crops
from jaxphoton.image.prepare import Prepared
from jaxphoton.measure.timeline import IMAGES, Recorder, recording
from tests.engine.harness import READOUT, Harness, image, request
from tests.engine.test_pipeline_masks import restricted
from tests.measure import traces

IMAGE_FILES = sorted(Path(__file__).parents[2].glob("examples/shapes/scene_*"))


def fake_run(depth: int, lengths: list[int], **rules) -> dict:
    """The trace of a pipeline on the fake device, on a clock that a look moves on by a second."""
    harness, recorder, clock = Harness(depth, **rules), Recorder(), map(float, itertools.count())

    def finished(sequence) -> None:
        recorder.request(sequence.request.number, sequence.finish_reason, sequence.metrics(next(clock)))

    harness.pipeline = Pipeline(
        harness.device,
        harness.scheduler,
        READOUT,
        depth,
        finished,
        on_metrics=recorder.launch,
        clock=lambda: next(clock),
    )
    for seed, length in enumerate(lengths):
        picture = image(seed) if seed % 2 else None
        asked = request(seed=seed, max_tokens=length, picture=picture)
        asked = restricted(asked, harness.stop) if seed % 3 == 1 else asked
        harness.submit(asked).submitted_at = next(clock)
    harness.run()
    return recorder.trace(depth=depth)


LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


@given(LENGTHS)
def test_blocking_launches_follow_each_other(lengths):
    trace = fake_run(1, lengths)
    traces.check(trace)
    assert traces.overlaps(trace) == 0
    assert {event["tid"] for event in traces.slots(trace)} == {1}


@given(LENGTHS)
def test_pipelined_launches_overlap(lengths):
    trace = fake_run(2, lengths, stop=0)
    traces.check(trace)
    bars = traces.slots(trace)
    assert (traces.overlaps(trace) > 0) == (len(bars) > 1)
    assert len(traces.requests(trace)) == len(lengths)
    assert [event["args"]["launch"] for event in bars] == list(range(len(bars)))


def test_steps_in_two_show_their_second_part():
    trace = fake_run(2, [8] * 3, stop=0)
    sampled = [launch for launch in traces.phases(trace).values() if "sample" in launch]
    assert sampled
    for launch in sampled:
        assert launch["launch"][1] < launch["sample"][0] <= launch["sample"][1] < launch["wait"][0]


def test_slots_take_turns_while_the_pipeline_is_full():
    bars = traces.slots(fake_run(2, [12], stop=0))
    assert [event["tid"] for event in bars[:6]] == [1, 2, 1, 2, 1, 2]
    for earlier, later in zip(bars[:5], bars[1:6], strict=True):
        assert earlier["ts"] < later["ts"] < earlier["ts"] + earlier["dur"]


@pytest.fixture(scope="module", params=[1, 2], ids=["depth 1", "depth 2"])
def model(request, shapes):
    """The shipped model on an engine of this depth, with programs that are compiled already."""
    from tests.beside import beside

    with beside(shapes, depth=request.param, image_workers=1) as model:
        yield model


def test_twenty_requests(model, tmp_path):
    path = tmp_path / "trace.json"
    images = list(itertools.islice(itertools.cycle(IMAGE_FILES), 20))
    with recording(model, path, model="shapes"):
        results = [item.result for item in model.batch("caption", images, {"max_tokens": 8, "temperature": 0})]
    trace = json.loads(path.read_text(encoding="utf-8"))
    traces.check(trace)
    depth = model.engine_config.depth
    assert trace["otherData"]["depth"] == depth and trace["otherData"]["model"] == "shapes"
    assert (traces.overlaps(trace) > 0) == (depth == 2)
    answered = traces.requests(trace)
    assert len({args["request"] for args in answered}) == len(results) == 20
    bars = [event["args"] for event in traces.slots(trace)]
    # Nothing is lost at the end, not even a step that only zombies ran.
    first = bars[0]["launch"]
    assert [args["launch"] for args in bars] == list(range(first, first + len(bars)))
    tokens = sum(args["rows"] - args["zombies"] for args in bars)
    assert tokens == sum(args["output_tokens"] for args in answered)
    assert {"encode + prefill", "decode"} <= {event["name"] for event in traces.slots(trace)}
    decoded = [event for event in trace["traceEvents"] if event["ph"] == "X" and event["pid"] == IMAGES]
    assert len(decoded) == 20 and {event["args"]["worker"] for event in decoded} == {0}


def test_a_request_passes_its_stages_in_order(model, tmp_path):
    with recording(model, tmp_path / "trace.json") as recorder:
        model.caption(str(IMAGE_FILES[0]), settings={"max_tokens": 4})
    spans = [event for event in recorder.trace()["traceEvents"] if event["ph"] == "b"]
    assert [event["name"] for event in spans] == ["request", "queued", "prefill", "decode"]
    assert spans[0]["args"]["end"] == "length"
    pictures = [event for event in recorder.trace()["traceEvents"] if event["name"] == "decode image"]
    assert [event["args"]["worker"] for event in pictures] == ["this process"]


def test_a_failed_run_leaves_a_trace_and_no_hook(model, tmp_path):
    engine = model.engine
    told = dict(engine._observers._told)
    with pytest.raises(KeyError), recording(model, tmp_path / "trace.json"):
        assert engine._observers._told != told
        model.caption(str(IMAGE_FILES[0]), settings={"max_tokens": 2})
        raise KeyError
    before = (tmp_path / "trace.json").read_bytes()
    model.caption(str(IMAGE_FILES[0]), settings={"max_tokens": 2})
    assert engine.drain(60) and engine._observers._told == told
    assert (tmp_path / "trace.json").read_bytes() == before
    trace = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    traces.check(trace)
    assert len(traces.requests(trace)) == 1


def test_what_cannot_be_recorded_is_said_at_once(model, tmp_path):
    with pytest.raises(OSError), recording(model, tmp_path / "nowhere" / "trace.json"):
        raise AssertionError("recording began")


def test_several_may_record_at_once(model, tmp_path):
    with recording(model, tmp_path / "one.json"):
        model.caption(str(IMAGE_FILES[0]), settings={"max_tokens": 2})
        with recording(model, tmp_path / "two.json"):
            model.caption(str(IMAGE_FILES[0]), settings={"max_tokens": 2})
    one, two = (json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("one.json", "two.json"))
    assert len(traces.requests(one)) == 2 and len(traces.requests(two)) == 1


def launch(number: int) -> LaunchMetrics:
    times = {"plan": 1.0, "launch": 1.0, "sample": 0.0, "sampled": 0.0, "wait": 1.0, "commit": 1.0}
    began = 10.0 * number
    return LaunchMetrics(number, "step", 2, 0, 0, 3, number % 2, began, began + 3, **times)


def test_only_the_last_are_kept_and_the_trace_says_so():
    recorder = Recorder(limit=3)
    for number in range(8):
        recorder.launch(launch(number))
    trace = recorder.trace()
    traces.check(trace)
    assert [event["args"]["launch"] for event in traces.slots(trace)] == [5, 6, 7]
    assert trace["otherData"]["truncated"]
    assert not Recorder().trace()["otherData"]["truncated"]


@given(st.lists(st.tuples(st.sampled_from([None, 0, 1]), st.integers(0, 20), st.integers(0, 9)), max_size=20))
def test_pictures_that_overlap_get_lanes_of_their_own(pictures):
    recorder, crops = Recorder(), Crops(np.zeros((1, 1, 1, 3), np.uint8), (0, 0))
    for worker, began, seconds in pictures:
        recorder.image(Prepared(crops, b"", (4, 4), (), began, seconds, worker))
    trace = recorder.trace()
    traces.check(trace)
    bars = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(bars) == len(pictures)
    owners = {(event["tid"], event["args"]["worker"]) for event in bars}
    assert len(owners) == len({lane for lane, _ in owners}), "a lane belongs to one worker"
