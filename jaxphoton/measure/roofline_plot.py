"""The roofline and the economics of batches as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxphoton.measure import figure
from jaxphoton.measure.chips import Chip
from jaxphoton.measure.roofline import Batch, Comparison, Floor, Knee


def draw(
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
    drawing, (roof, economy) = figure.new_figure(columns=2)
    drawing.suptitle(title)
    _roof(roof, chip, dtype, parts, measured)
    _economy(economy, steps, knee, measured)
    figure.save(drawing, path)


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
