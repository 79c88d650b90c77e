"""Traces of several runs as one picture: each run's lanes, over windows of equal length, on one time axis."""

from __future__ import annotations

import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxphoton.measure.timeline import ENGINE, HOST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS = 6  # that an automatic window shows

# Colours that people with any colour vision tell apart (Okabe and Ito).
LAUNCHES = {"decode": "#56B4E9", "prefill": "#F0E442", "encode + prefill": "#F0E442"}
PHASES = {"plan": "#CC79A7", "launch": "#D55E00", "sample": "#E69F00", "wait": "#DDDDDD", "commit": "#009E73"}


class TraceError(ValueError):
    """A file is not a trace that jaxphoton has written, or holds too little to be drawn."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One complete event of the engine; milliseconds from the start of the trace. A bar of the host has 0 rows."""

    lane: int
    name: str
    launch: int
    rows: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Run:
    """One trace. `bars` are those of the engine, slots and host, by time; `about` says what ran."""

    name: str
    about: str
    depth: int
    bars: tuple[Bar, ...]

    def steps(self) -> list[Bar]:
        """In-flight bars of the decode steps in the order of their launch."""
        return sorted(
            (bar for bar in self.bars if bar.name == "decode" and bar.lane != HOST), key=lambda bar: bar.launch
        )

    def steady(self) -> list[Bar]:
        """`STEPS` decode steps in a row that no prefill interrupts, with many rows and of typical length; where there
        are none, the longest row of fewer.

        Raises:
          TraceError: the trace has no decode step.
        """
        stretches: list[list[Bar]] = []
        for bar in self.steps():
            if not stretches or stretches[-1][-1].launch + 1 != bar.launch:
                stretches.append([])
            stretches[-1].append(bar)
        if not stretches:
            raise TraceError(f"{self.name}: no decode step in this trace")
        candidates = [part[i : i + STEPS] for part in stretches for i in range(len(part) - STEPS + 1)]
        if not candidates:
            return max(stretches, key=len)
        rows = [sum(bar.rows for bar in steps) for steps in candidates]
        full = [steps for steps, count in zip(candidates, rows, strict=True) if count >= 0.9 * max(rows)]
        # The median: neither the steps that waited for a compilation nor the luckiest ones.
        return sorted(full, key=lambda steps: steps[-1].end - steps[0].begin)[len(full) // 2]

    def steady_window(self) -> tuple[float, float]:
        """From the plan of the first of these steps to the result of the last, in milliseconds."""
        steps = self.steady()
        plan = next(bar for bar in self.bars if bar.name == "plan" and bar.launch == steps[0].launch)
        return plan.begin, steps[-1].end


def read_run(path: Path) -> Run:
    """Reads a trace that `jaxphoton.measure.timeline` has written.

    Raises:
      TraceError: it is not one.
      OSError: the file cannot be read.
    """
    try:
        trace = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TraceError(f"{path}: not JSON: {error}") from error
    about = trace.get("otherData") if isinstance(trace, dict) else None
    if not isinstance(about, dict) or about.get("producer") != "jaxphoton":
        raise TraceError(f"{path}: not a trace written by jaxphoton --trace")
    try:
        events = [event for event in trace["traceEvents"] if event["ph"] == "X" and event["pid"] == ENGINE]
        bars = tuple(_bar(event) for event in sorted(events, key=lambda event: event["ts"]))
        what = ", ".join(str(about[name]) for name in ("model", "device") if name in about)
        return Run(path.name, what, int(about["depth"]), bars)
    except (KeyError, TypeError, ValueError) as error:
        raise TraceError(f"{path}: a broken event or field: {error!r}") from error


def _bar(event: dict[str, Any]) -> Bar:
    begin = event["ts"] / 1000
    args = event["args"]
    return Bar(event["tid"], event["name"], args["launch"], args.get("rows", 0), begin, begin + event["dur"] / 1000)


def windows(runs: Sequence[Run], start_ms: float | None, window_ms: float | None) -> list[tuple[float, float]]:
    """(begin, end) in milliseconds of what is shown of each run, all of one length.

    Without a start, each run's begins in its steady state; without a length, all are as long as the slowest run needs
    for `STEPS` steps.

    Raises:
      TraceError: nothing of a run lies in its window.
    """
    found = [run.steady_window() for run in runs] if start_ms is None or window_ms is None else []
    starts = [begin for begin, _ in found] if start_ms is None else [start_ms] * len(runs)
    length = 1.03 * max(end - begin for begin, end in found) if window_ms is None else window_ms
    chosen = [(start, start + length) for start in starts]
    for run, (begin, end) in zip(runs, chosen, strict=True):
        if not any(bar.end > begin and bar.begin < end for bar in run.bars):
            raise TraceError(f"{run.name}: nothing between {begin:g} and {end:g} ms")
    return chosen


def draw(runs: Sequence[Run], chosen: Sequence[tuple[float, float]]) -> Figure:
    """The picture; needs matplotlib (extra `plot`)."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lanes = [sorted({bar.lane for bar in run.bars}) for run in runs]
    figure = Figure(figsize=(12, 1.3 + sum(0.45 + 0.5 * len(shown) for shown in lanes)), dpi=150, layout="constrained")
    axes = figure.subplots(
        len(runs), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [len(shown) for shown in lanes]}
    )[:, 0]
    names: set[str] = set()
    for axis, run, shown, (begin, end) in zip(axes, runs, lanes, chosen, strict=True):
        names |= _draw_run(axis, run, shown, begin, end)
    axes[-1].set_xlabel("milliseconds from the start of each window")
    handles = [
        Patch(facecolor=colour, edgecolor="#444444", linewidth=0.6, label=_LABELS.get(name, name))
        for name, colour in (LAUNCHES | PHASES).items()
        if name in names and not (name == "prefill" and "encode + prefill" in names)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


_LABELS = {
    "decode": "decode step in flight",
    "prefill": "prefill in flight",
    "encode + prefill": "prefill in flight",
    "sample": "launch of sampling",
    "wait": "wait for the device",
}


def _draw_run(axis: Axes, run: Run, lanes: list[int], begin: float, end: float) -> set[str]:
    """Draws one run's window; returns the names of the bars drawn."""
    alike: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    for bar in run.bars:
        left, right = max(bar.begin, begin) - begin, min(bar.end, end) - begin
        if left >= right:
            continue
        alike[bar.lane, bar.name].append((left, right - left))
        if right - left > 0.05 * (end - begin):
            kind = "step" if bar.name == "decode" else bar.name if bar.lane == HOST else "prefill"
            row = lanes.index(bar.lane)
            axis.text((left + right) / 2, row, f"{kind} {bar.launch}", ha="center", va="center", fontsize=9)
    for (lane, name), spans in alike.items():
        colour = PHASES[name] if lane == HOST else LAUNCHES[name]
        # No edge on the host's bars: its phases are often narrower than one.
        edge = {"edgecolor": "#444444", "linewidth": 0.0 if lane == HOST else 0.6}
        axis.broken_barh(spans, (lanes.index(lane) - 0.36, 0.72), facecolor=colour, **edge)
    axis.set_yticks(range(len(lanes)), ["host" if lane == HOST else f"slot {lane - 1}" for lane in lanes])
    axis.set_ylim(len(lanes) - 0.5, -0.5)
    axis.set_xlim(0, end - begin)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#EEEEEE")
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    how = "blocking (depth 1)" if run.depth == 1 else f"pipelined (depth {run.depth})"
    axis.set_title(how + _pace(run, begin, end), loc="left", fontsize=11)
    axis.set_title(f"{run.name}: {run.about}", loc="right", fontsize=9, color="#666666")
    return {name for _, name in alike}


def _pace(run: Run, begin: float, end: float) -> str:
    """How often a step's result arrives inside the window, where two or more do, and of how many rows."""
    steps = sorted((bar for bar in run.steps() if begin <= bar.end <= end), key=lambda bar: bar.end)
    if len(steps) < 2:
        return ""
    period = statistics.median(later.end - earlier.end for earlier, later in itertools.pairwise(steps))
    fewest, most = min(bar.rows for bar in steps), max(bar.rows for bar in steps)
    rows = f"{most}" if fewest == most else f"{fewest} to {most}"
    return f", {rows} row{'s' * (most > 1)}: a step every {period:.2f} ms (median of the window)"
