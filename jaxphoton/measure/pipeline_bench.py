"""Blocking against pipelined decoding of the same requests, and the speed-up predicted from parts.

Terms, all in seconds a step: T_block and T_pipe are the periods at depth 1 and 2, from one result to the next; z is the
share of steps at depth 2 that only ended rows ran. Then tokens a second should grow by T_block / T_pipe * (1 - z); and,
from the parts of blocking steps alone, by (forward + sampling + host) / max(forward + sampling, host).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxphoton.measure.decoding import DecodeBench, Run, pool

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


def measure_stream(bench: DecodeBench, rounds: int, callbacks: bool = False) -> StreamReport:
    """Interleaved runs of one bench, and its device alone."""
    forward, sampling = bench.device_seconds()
    blocking, pipelined = interleaved(bench, rounds, callbacks)
    return summarise(bench.rows, bench.tokens, forward, sampling, blocking, pipelined)


def interleaved(bench: DecodeBench, rounds: int, callbacks: bool = False) -> tuple[list[Run], list[Run]]:
    """(blocking, pipelined) runs, one of each a round; with `callbacks` the second kind delivers by callback."""
    second = bench.run_with_callbacks if callbacks else bench.run
    for warm_up in (bench.run, second):
        warm_up(2)
    pairs = [(bench.run(1), second(2)) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


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
