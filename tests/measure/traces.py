"""The rules of the Chrome trace format that jaxphoton's traces must keep."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

Event = dict[str, Any]


def check(trace: dict[str, Any]) -> None:
    """Every event has its fields and times; in one lane complete events follow each other in order (the format lets
    them nest: ours never do); every begin of an asynchronous span has its end, innermost first; every lane and process
    has a name."""
    lanes, spans, named = defaultdict(list), defaultdict(list), set()
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str) and isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert event["ts"] >= 0
        if event["ph"] == "M":
            named.add((event["name"], event["pid"], event["tid"]))
        elif event["ph"] == "X":
            assert event["dur"] >= 0
            lanes[event["pid"], event["tid"]].append(event)
        else:
            assert event["ph"] in "be" and isinstance(event["id"], str) and event["cat"]
            spans[event["pid"], event["cat"], event["id"]].append(event)
    for lane in {*lanes, *((pid, 1) for pid, *_ in spans)}:
        assert ("thread_name", *lane) in named and ("process_name", lane[0], 0) in named
    for events in lanes.values():
        for earlier, later in itertools.pairwise(events):
            assert ns(earlier["ts"]) + ns(earlier["dur"]) <= ns(later["ts"]), f"{later} begins before {earlier} ends"
    for events in spans.values():
        names: list[str] = []
        assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
        for event in events:
            if event["ph"] == "b":
                names.append(event["name"])
            else:
                assert names and names.pop() == event["name"], f"{event} ends what has not begun"
        assert not names, f"{names} never end"


def ns(microseconds: float) -> int:
    return round(microseconds * 1000)


def phases(trace: dict[str, Any]) -> dict[int, dict[str, tuple[int, int]]]:
    """Launch number -> "plan", "launch", "wait", "commit" -> (begin, end) in ns."""
    found: dict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
    for event in trace["traceEvents"]:
        if event["ph"] == "X" and "of" in event["args"]:
            begin = ns(event["ts"])
            found[event["args"]["launch"]][event["name"]] = begin, begin + ns(event["dur"])
    return dict(found)


def overlaps(trace: dict[str, Any]) -> int:
    """How many launches began before the commit of the launch before them had ended."""
    launches = phases(trace)
    pairs = [(launches[i], launches[i + 1]) for i in launches if i + 1 in launches]
    return sum(later["launch"][0] < earlier["commit"][1] for earlier, later in pairs)


def slots(trace: dict[str, Any]) -> list[Event]:
    """In-flight bars, by launch."""
    bars = [event for event in trace["traceEvents"] if event["ph"] == "X" and "rows" in event["args"]]
    return sorted(bars, key=lambda event: event["args"]["launch"])


def requests(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """What the trace says of each request."""
    return [event["args"] for event in trace["traceEvents"] if event["ph"] == "b" and event["name"] == "request"]
