"""Pictures of measurements, drawn with matplotlib (an optional dependency) and without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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
