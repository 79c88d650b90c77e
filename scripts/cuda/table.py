"""The evidence as a table."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.cuda.checks import faults, kernels_per_layer
from scripts.cuda.evidence import Evidence

HEAD = (
    "program",
    "layers",
    "chip",
    "top-level thunks",
    "kernels",
    "+ branches",
    "a layer",
    "temp MB",
    "alias MB",
    "x needed",
    "s",
)


def rows_of(found: Sequence[Evidence]) -> list[str]:
    """Lines of one table, a program each, and how many of them are in order."""
    ordered = sorted(found, key=lambda evidence: (evidence.program, -evidence.layers, evidence.chip))
    cells = [(*HEAD, "verdict"), *(_cells(evidence, found) for evidence in ordered)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    good = sum(not faults(evidence) for evidence in found)
    return [*lines, "", f"{good} of {len(found)} programs are as they should be."]


def _cells(evidence: Evidence, found: Sequence[Evidence]) -> tuple[str, ...]:
    slope = kernels_per_layer(evidence, found)
    return (
        evidence.program,
        str(evidence.layers or ""),
        evidence.chip,
        " ".join(f"{count} {kind}" for kind, count in evidence.top.items()),
        str(evidence.kernels),
        str(evidence.branches),
        "" if slope is None else f"{slope:.1f}",
        f"{evidence.temporary / 1e6:.1f}",
        f"{evidence.aliased / 1e6:.1f}",
        f"{evidence.operations / evidence.needed:.2f}" if evidence.needed else "",
        f"{evidence.seconds:.0f}",
        "; ".join(fault.partition(":")[0] for fault in faults(evidence)) or "ok",
    )
