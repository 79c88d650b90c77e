"""A run as Chrome-trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Everything is seen from the host. The device's own clock is not read: a slot's bar is "in flight", from the moment
its launch was enqueued to the moment its result had been read, and holds the time that the launch waited behind the
one before it and the time that its result waited for the host.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxphoton import __version__
from jaxphoton.engine.metrics import LaunchMetrics, RequestMetrics
from jaxphoton.engine.pipeline import DEPTH
from jaxphoton.image.prepare import Prepared

if TYPE_CHECKING:
    from jaxphoton.api import Model
    from jaxphoton.engine.engine import Submission

# Under 10 MB of memory, for its writing 100 MB; a file of about 15 MB; some minutes of a run.
LIMIT = 20_000
PATIENCE_S = 1.0

# Processes and threads of the trace.
ENGINE, IMAGES, REQUESTS = 1, 2, 3
HOST = DEPTH + 1

Event = dict[str, Any]


class Recorder:
    """Keeps the last `limit` launches, requests and images: older ones are forgotten, so a long run may be recorded.

    Recording is one append each; events are made when the trace is written. A launch that a device error took is not
    in it.
    """

    def __init__(self, limit: int = LIMIT):
        self._launches: deque[LaunchMetrics] = deque(maxlen=limit)
        self._requests: deque[tuple[int, str, RequestMetrics]] = deque(maxlen=limit)
        # Without their pixels: (number of the worker or None, began, seconds, (height, width)).
        self._images: deque[tuple[int | None, float, float, tuple[int, int]]] = deque(maxlen=limit)

    def launch(self, launch: LaunchMetrics) -> None:
        self._launches.append(launch)

    def request(self, number: int, end: str, metrics: RequestMetrics) -> None:
        """`end` says how it ended: "stop", "length", "failed" or "cancelled"."""
        self._requests.append((number, end, metrics))

    def submission(self, submission: Submission) -> None:
        sequence = submission.sequence
        assert submission.metrics is not None
        end = "failed" if sequence.error is not None else sequence.finish_reason or "cancelled"
        self.request(sequence.request.number, end, submission.metrics)

    def image(self, prepared: Prepared) -> None:
        self._images.append((prepared.worker, prepared.began, prepared.seconds, prepared.size))

    def trace(self, **about: Any) -> dict[str, Any]:
        """The trace in the JSON object form; times in microseconds from its first event.

        `about` goes to `otherData`, where also `truncated` says whether the oldest may have been forgotten.
        """
        events = [event for launch in list(self._launches) for event in launch_events(launch)]
        events += image_events(list(self._images))
        events.sort(key=lambda event: (event["pid"], event["tid"], event["ts"]))
        for request in list(self._requests):
            events += request_events(*request)
        zero = min((event["ts"] for event in events), default=0)
        for event in events:
            event["ts"] = (event["ts"] - zero) / 1000
        kept = (self._launches, self._requests, self._images)
        truncated = any(len(ring) == ring.maxlen for ring in kept)
        return {
            "traceEvents": [*_names(events), *events],
            "displayTimeUnit": "ms",
            "otherData": {"producer": "jaxphoton", "version": __version__, "truncated": truncated, **about},
        }


@contextmanager
def recording(model: Model, path: str | Path, /, **about: Any) -> Iterator[Recorder]:
    """Records what a model does and writes the trace to `path` on leaving, after an exception too.

    `about` is what the trace should say of the run besides. Requests under way at the end are not in it.

    Raises:
      OSError: the file cannot be written; known on entering.
    """
    import jax  # pictures of traces need none

    recorder, engine = Recorder(), model.engine
    device = next(iter(jax.tree.leaves(model.params)[0].devices()))
    about = {"depth": engine.pipeline.depth, "device": device.device_kind, **about}
    with Path(path).open("w", encoding="utf-8") as file:
        try:
            with model.observe(recorder.launch, recorder.submission, recorder.image):
                try:
                    yield recorder
                finally:
                    engine.drain(PATIENCE_S)  # steps that only ended rows ran come after the last result
        finally:
            file.write(json.dumps(recorder.trace(**about), separators=(",", ":")))


def launch_events(launch: LaunchMetrics) -> Iterator[Event]:
    """A bar in its slot's lane and its phases in the host's; times in ns."""
    enqueued = launch.began + launch.plan + launch.launch
    name = "decode" if launch.kind == "step" else "encode + prefill" if launch.images else "prefill"
    counts = {"rows": launch.rows, "zombies": launch.zombies, "images": launch.images, "pages": launch.pages}
    yield _bar(ENGINE, 1 + launch.slot, name, enqueued, launch.arrived, {"launch": launch.number, **counts})
    phases = [
        ("plan", launch.began, launch.began + launch.plan),
        ("launch", launch.began + launch.plan, enqueued),
        ("sample", launch.sampled, launch.sampled + launch.sample),
        ("wait", launch.arrived - launch.wait, launch.arrived),
        ("commit", launch.arrived, launch.arrived + launch.commit),
    ]
    for phase, begin, end in phases:
        if phase != "sample" or launch.sampled:
            yield _bar(ENGINE, HOST, phase, begin, end, {"launch": launch.number, "of": name})


def request_events(number: int, end: str, metrics: RequestMetrics) -> Iterator[Event]:
    """An asynchronous span, and inside it one for each stage that the request has reached; times in ns."""
    common = {"cat": "request", "id": f"{number:#x}", "pid": REQUESTS, "tid": 1}
    counts = ("input_tokens", "cached_tokens", "output_tokens", "set_back")
    args = {"request": number, "end": end, **{name: getattr(metrics, name) for name in counts}}
    time = metrics.submitted
    yield {"name": "request", "ph": "b", "ts": _ns(time), **common, "args": args}
    for name, seconds in (("queued", metrics.queue), ("prefill", metrics.prefill), ("decode", metrics.decode)):
        if seconds > 0:
            yield {"name": name, "ph": "b", "ts": _ns(time), **common, "args": {"request": number}}
            time += seconds
            yield {"name": name, "ph": "e", "ts": _ns(time), **common}
    yield {"name": "request", "ph": "e", "ts": _ns(time), **common}


def image_events(images: Iterable[tuple[int | None, float, float, tuple[int, int]]]) -> Iterator[Event]:
    """A bar a picture in its worker's lane; where two of one worker overlap (one was done by its lane in this
    process), or of several calling threads, a second lane is opened. Times in ns."""
    ends: list[tuple[int | None, float]] = []  # by lane: whose it is and when it is free
    for worker, began, seconds, (height, width) in sorted(images, key=lambda image: image[1]):
        lane = next((i for i, (owner, end) in enumerate(ends) if owner == worker and end <= began), len(ends))
        ends[lane : lane + 1] = [(worker, began + seconds)]
        args = {"worker": "this process" if worker is None else worker, "height": height, "width": width}
        yield _bar(IMAGES, 1 + lane, "decode image", began, began + seconds, args)


def _bar(process: int, thread: int, name: str, begin: float, end: float, args: dict[str, Any]) -> Event:
    begin_ns = _ns(begin)
    duration = (_ns(end) - begin_ns) / 1000
    return {"name": name, "ph": "X", "ts": begin_ns, "dur": duration, "pid": process, "tid": thread, "args": args}


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _names(events: list[Event]) -> Iterator[Event]:
    """Names of processes and lanes, in the order in which they are to be shown."""
    lanes: dict[tuple[int, int], str] = {}
    for event in events:
        if event["pid"] == IMAGES:
            worker = event["args"]["worker"]
            lanes[IMAGES, event["tid"]] = worker if isinstance(worker, str) else f"worker {worker}"
    lanes |= {(ENGINE, 1 + slot): f"slot {slot}: in flight (enqueued -> result read)" for slot in range(DEPTH)}
    lanes |= {(ENGINE, HOST): "host: plan, launch, wait, commit", (REQUESTS, 1): "requests"}
    for process, name in ((ENGINE, "engine"), (IMAGES, "image decoding"), (REQUESTS, "requests")):
        yield _meta("process_name", process, 0, name=name)
        yield _meta("process_sort_index", process, 0, sort_index=process)
    for (process, thread), name in sorted(lanes.items()):
        yield _meta("thread_name", process, thread, name=name)
        yield _meta("thread_sort_index", process, thread, sort_index=thread)


def _meta(kind: str, process: int, thread: int, **args: Any) -> Event:
    return {"name": kind, "ph": "M", "ts": 0, "pid": process, "tid": thread, "args": args}
