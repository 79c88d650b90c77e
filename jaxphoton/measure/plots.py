"""Pictures of measurements, drawn with matplotlib (an optional dependency) and without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxphoton.engine.memory import MemoryPlan, human
from jaxphoton.measure.chips import Chip
from jaxphoton.measure.roofline import Batch, Comparison, Floor, Knee

if TYPE_CHECKING:
    from jaxphoton.measure.pipeline_bench import StreamReport

GIB = 2**30


class PlotError(ValueError):
    """A picture that cannot be drawn or written."""


def new_figure(columns: int = 1, height: float = 4.5) -> tuple[Any, list[Any]]:
    """A matplotlib Figure and its axes, side by side.

    Raises:
      PlotError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError("plots need matplotlib: pip install 'jaxphoton[plot]'") from error
    figure = Figure(figsize=(1 + 5 * columns, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def save(figure: Any, path: str | Path) -> None:
    """Writes a figure; the ending of the name is the format.

    Raises:
      PlotError: the file cannot be written, or matplotlib knows no such format.
    """
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise PlotError(f"{path}: cannot be written: {error}") from error


def draw_plan(
    plan: MemoryPlan, title: str, path: str | Path, memory: int | None = None, usable: int | None = None
) -> None:
    """Writes the picture; `memory` and `usable` are the device's bytes, where one was named.

    Raises:
      PlotError: matplotlib is missing, or the file cannot be written.
    """
    parts = {f"weights, {name}": size for name, size in plan.weights.items()}
    parts |= {"keys and values": plan.kv_bytes, "row state": plan.row_state_bytes}
    parts |= {
        f"temporaries, {plan.source}": plan.temporaries_bytes,
        f"activations, {plan.source}": plan.activation_bytes,
    }
    if memory is not None and usable is not None:
        parts |= {"free": max(0, usable - plan.total_bytes), "runtime reserve": memory - usable}
    drawing, (axes,) = new_figure()
    bottom = 0.0
    for name, size in parts.items():
        colour = {"free": "white", "runtime reserve": "lightgrey"}.get(name)
        axes.bar(
            0, size / GIB, 0.5, bottom, label=f"{name}: {human(size)}", color=colour, edgecolor="black", linewidth=0.5
        )
        bottom += size / GIB
    if usable is not None:
        axes.axhline(usable / GIB, color="black", linestyle="--", linewidth=1, label=f"usable: {human(usable)}")
    axes.set(title=title, ylabel="GiB", xlim=(-0.5, 0.5), xticks=[])
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize="small")
    save(drawing, path)


def draw_roofline(
    title: str,
    chip: Chip,
    dtype: str,
    parts: Sequence[Floor],
    steps: Sequence[Batch],
    knee: Knee,
    measured: Sequence[Comparison],
    path: str | Path,
) -> None:
    """Writes the picture: attainable rate against operations a byte, and tokens a second against rows.

    Raises:
      PlotError: matplotlib is missing, or the file cannot be written.
    """
    drawing, (roof, economy) = new_figure(columns=2)
    drawing.suptitle(title)
    _roof(roof, chip, dtype, parts, measured)
    _economy(economy, steps, knee, measured)
    save(drawing, path)


def _roof(axes, chip: Chip, dtype: str, parts: Sequence[Floor], measured: Sequence[Comparison]) -> None:
    parts = [part for part in parts if not part.name.startswith("boxes")]
    ends = [f(part.cost.intensity for part in parts) for f in (min, max)]
    ridge = chip.rate(dtype) / chip.bandwidth
    intensity = np.geomspace(min(ends[0], ridge) / 2, max(ends[1], ridge) * 2, 200)
    axes.plot(intensity, np.minimum(intensity * chip.bandwidth, chip.rate(dtype)) / 1e12, color="black", linewidth=1)
    for part in parts:
        rate = part.cost.flops / part.seconds / 1e12
        axes.plot(part.cost.intensity, rate, "o", label=f"{part.name}: {1e3 * part.seconds:.2f} ms")
    for index, m in enumerate(measured):
        label = None if index else "measured"
        axes.plot(m.floor.cost.intensity, m.floor.cost.flops / m.seconds / 1e12, "kx", label=label)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel=f"attainable TFLOP/s ({dtype})")
    axes.set_title(f"{chip.name} ({chip.source})", fontsize="medium")
    axes.legend(fontsize="x-small")


def _economy(axes, steps: Sequence[Batch], knee: Knee, measured: Sequence[Comparison]) -> None:
    rows = [step.rows for step in steps]
    axes.plot(rows, [step.tokens_per_s for step in steps], "o-", label="tokens/s, all rows (floor)")
    ticks = {int(m.floor.name.split()[1]): m.seconds for m in measured if m.floor.name.startswith("tick")}
    if ticks:
        axes.plot(list(ticks), [rows / spent for rows, spent in ticks.items()], "kx", label="tokens/s measured")
    slow = axes.twinx()
    slow.plot(rows, [1e3 * step.step_s for step in steps], "s--", color="tab:red", label="ms a token, each row (floor)")
    slow.set(ylabel="ms a token", ylim=(0, None))
    names = {"keys and values outweigh weights": knee.kv_over_weights, "compute binds": knee.compute_over_bytes}
    for style, (name, at) in zip((":", "-."), names.items(), strict=True):
        if at is not None and at <= rows[-1]:
            axes.axvline(at, color="grey", linestyle=style, label=f"{name} from {at} rows")
    axes.set(xscale="log", xlabel="rows", ylabel="tokens/s", ylim=(0, None), xticks=rows, xticklabels=rows)
    axes.minorticks_off()
    handles, labels = (
        a + b for a, b in zip(axes.get_legend_handles_labels(), slow.get_legend_handles_labels(), strict=True)
    )
    axes.legend(handles, labels, fontsize="x-small", loc="upper left")


def draw_pipeline(streams: Sequence[StreamReport], title: str, path: str | Path) -> None:
    """A picture: where a step's time goes, and speed-ups predicted and observed.

    Raises:
      PlotError: as `save`, or matplotlib is not installed.
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
