"""The memory plan as a picture: one stacked bar, and the device beside it."""

from __future__ import annotations

from pathlib import Path

from jaxphoton.engine.memory import MemoryPlan, human
from jaxphoton.measure import figure

GIB = 2**30


def draw(plan: MemoryPlan, title: str, path: str | Path, memory: int | None = None, usable: int | None = None) -> None:
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
    drawing, (axes,) = figure.new_figure()
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
    figure.save(drawing, path)
