"""The readable form of a result of scripts/gpu_check.py; no jax here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LINES = 40  # of a table; JSON has all


def render(whole: Mapping[str, Any]) -> str:
    """A block a part; parts that are runs of one thing under different flags come together in one table."""
    lines, flags = [], []
    for name, result in whole.items():
        if name.startswith("flag-") and "error" not in result and "skipped" not in result:
            flags.append({"flag": name.removeprefix("flag-"), **{k: v for k, v in result.items() if k != "failed"}})
        else:
            lines += [f"== {name}", *_part(result), ""]
    if flags:
        lines += ["== flags", *_table(flags), ""]
    return "\n".join(lines)


def _part(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in result.items():
        if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            lines += [f"  {key}", *_table(value)]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            lines += [f"  {key}: {'none' if not any(value) else ''}", *(f"    {item}" for item in value if item)]
        else:
            text = _cell(value).replace("\n", "\n      ")
            lines.append(f"  {key}: {text}")
    return lines


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows[:LINES])]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    shown = ["    " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return shown + ([f"    ... {len(rows) - LINES} more"] if len(rows) > LINES else [])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
