"""What a pipeline benchmark has shown: figures, table, picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxphoton.measure.figure import new_figure, save
from jaxphoton.measure.pipeline_bench import PipelineBench, Run, interleaved, pool

Spread = tuple[float, float]
PARTS = ("plan", "launch", "wait", "commit")


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One number of streams; milliseconds a step, medians. Parts are those of blocking steps.

    Attributes:
      rows: streams, decoded together.
      t_block_ms, t_pipe_ms: period of a step at depth 1 and 2.
      tokens_per_request: tokens of every request.
      zombie_fraction: share of the pipelined steps that only ended rows ran.
      predicted_speedup: t_block / t_pipe * (1 - zombie_fraction), of each pair of runs.
      predicted_from_parts: (forward + sampling + host) / max(forward + sampling, host), of blocking steps alone.
      observed_speedup: decode time of all requests, blocking over pipelined.
      forward_ms, sampling_ms: on the device alone.
      plan_ms, launch_ms, wait_ms, commit_ms: of the host; synthetic work is in commit.
      idle_ms: t_pipe less forward and sampling: what the device does nothing in.
      spread: quartiles of the figures above that are medians, by name.
    """

    rows: int
    t_block_ms: float
    t_pipe_ms: float
    tokens_per_request: int
    zombie_fraction: float
    predicted_speedup: float
    predicted_from_parts: float
    observed_speedup: float
    forward_ms: float
    sampling_ms: float
    plan_ms: float
    launch_ms: float
    wait_ms: float
    commit_ms: float
    idle_ms: float
    spread: dict[str, Spread]


def measure_stream(bench: PipelineBench, rounds: int, callbacks: bool = False) -> StreamReport:
    """Interleaved runs of one bench, and its device alone."""
    forward, sampling = bench.device_seconds()
    blocking, pipelined = interleaved(bench, rounds, callbacks)
    return summarise(bench.rows, bench.tokens, forward, sampling, blocking, pipelined)


def summarise(
    rows: int, tokens: int, forward: float, sampling: float, blocking: Sequence[Run], pipelined: Sequence[Run]
) -> StreamReport:
    """Figures of runs that were made in pairs; `forward` and `sampling` in seconds."""
    samples = {f"{part}_ms": [1e3 * s for s in pool(blocking, part)] for part in PARTS}
    samples["t_block_ms"] = [1e3 * s for s in pool(blocking, "period")]
    samples["t_pipe_ms"] = [1e3 * s for s in pool(pipelined, "period")]
    pairs = list(zip(blocking, pipelined, strict=True))
    samples["observed_speedup"] = [one.seconds / other.seconds for one, other in pairs]
    # Of pairs of runs, one right after the other: what slows a machine for seconds slows both.
    samples["predicted_speedup"] = [
        statistics.median(one.periods) / statistics.median(other.periods) * (1 - other.zombie_fraction)
        for one, other in pairs
    ]
    medians = {name: statistics.median(values) for name, values in samples.items()}
    device = 1e3 * (forward + sampling)
    host = medians["plan_ms"] + medians["launch_ms"] + medians["commit_ms"]
    zombies = statistics.median(run.zombie_fraction for run in pipelined)
    return StreamReport(
        rows=rows,
        tokens_per_request=tokens,
        zombie_fraction=zombies,
        predicted_from_parts=(device + host) / max(device, host),
        forward_ms=1e3 * forward,
        sampling_ms=1e3 * sampling,
        idle_ms=max(0.0, medians["t_pipe_ms"] - device),
        spread={name: _quartiles(values) for name, values in samples.items()},
        **medians,
    )


def _quartiles(values: list[float]) -> Spread:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def table(streams: Sequence[StreamReport]) -> list[str]:
    """Lines for people; quartiles in brackets."""

    def spread(name: str) -> Callable[[StreamReport], str]:
        def cell(stream: StreamReport) -> str:
            low, high = stream.spread[name]
            return f"{getattr(stream, name):.3f} [{low:.3f}, {high:.3f}]"

        return cell

    lines = [
        ("streams", lambda s: str(s.rows)),
        ("blocking period (T_block), ms", spread("t_block_ms")),
        ("pipelined period (T_pipe), ms", spread("t_pipe_ms")),
        ("tokens a request (L)", lambda s: str(s.tokens_per_request)),
        ("steps of ended rows only (z)", lambda s: f"{s.zombie_fraction:.4f}"),
        ("device: forward, ms", lambda s: f"{s.forward_ms:.3f}"),
        ("device: sampling, ms", lambda s: f"{s.sampling_ms:.3f}"),
        *((f"host: {part}, ms", spread(f"{part}_ms")) for part in PARTS),
        ("device idle a pipelined step, ms", lambda s: f"{s.idle_ms:.3f}"),
        ("predicted: T_block / T_pipe * (1 - z)", spread("predicted_speedup")),
        ("predicted from the blocking parts", lambda s: f"{s.predicted_from_parts:.3f}"),
        ("observed speed-up", spread("observed_speedup")),
    ]
    cells = [[title, *(cell(stream) for stream in streams)] for title, cell in lines]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]


def draw(streams: Sequence[StreamReport], title: str, path: str | Path) -> None:
    """A picture: where a step's time goes, and speed-ups predicted and observed.

    Raises:
      PlotError: as `figure.save`, or matplotlib is not installed.
    """
    figure, (bars, gains) = new_figure(2)
    _draw_parts(bars, streams)
    places = range(len(streams))
    kinds = (
        ("predicted_from_parts", "from blocking parts"),
        ("predicted_speedup", "from both periods"),
        (
            "observed_speedup",
            "observed",
        ),
    )
    for shift, (name, label) in enumerate(kinds):
        gains.bar([p + 0.27 * (shift - 1) for p in places], [getattr(s, name) for s in streams], 0.25, label=label)
    gains.axhline(1, color="0.4", linewidth=0.8)
    gains.set_xticks(list(places), [str(s.rows) for s in streams])
    gains.set(xlabel="streams", ylabel="speed-up of pipelining", ylim=(0, 1.15 * gains.get_ylim()[1]))
    gains.legend(loc="upper center", ncols=3)
    figure.suptitle(title)
    save(figure, path)


def _draw_parts(axes: Any, streams: Sequence[StreamReport]) -> None:
    """Two bars a stream: a blocking step by parts, a pipelined one by device time and idleness."""
    blocking = [("device", lambda s: s.forward_ms + s.sampling_ms, "tab:blue")]
    blocking += [(f"host: {part}", lambda s, p=part: getattr(s, f"{p}_ms"), colour) for part, colour in _HOST]
    blocking += [("other", lambda s: max(0.0, s.t_block_ms - sum(get(s) for _, get, _ in blocking[:4])), "0.8")]
    for place, stream in enumerate(streams):
        bottom = 0.0
        for label, get, colour in blocking:
            axes.bar(place - 0.2, get(stream), 0.36, bottom, color=colour, label=label if place == 0 else None)
            bottom += get(stream)
        device = stream.t_pipe_ms - stream.idle_ms
        axes.bar(place + 0.2, device, 0.36, color="tab:blue")
        axes.bar(
            place + 0.2,
            stream.idle_ms,
            0.36,
            device,
            color="0.93",
            edgecolor="0.6",
            label="device idle" if place == 0 else None,
        )
    axes.set_xticks(range(len(streams)), [f"{s.rows}\nblocking | pipelined" for s in streams])
    axes.set(ylabel="ms a step")
    axes.legend()


_HOST = (("plan", "tab:green"), ("launch", "tab:orange"), ("commit", "tab:red"))
