"""The evidence as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scripts.cuda.checks import faults, kernels_per_layer
from scripts.cuda.evidence import Evidence

HEAD = ("program", "layers", "chip", "top-level thunks", "kernels", "+ branches", "a layer", "temp MB", "alias MB")
HEAD += ("x needed", "reads", "x bf16", "s", "verdict")
MESH = ("program", "layers", "GPUs", "all-reduces", "all-gathers", "largest MB", "weights GB", "of each GPU", "on all")
USAGE = ("kernel", "chip", "blocks", "threads", "registers", "spilled", "shared", "occupancy", "waves", "first in")


def rows_of(found: Sequence[Evidence]) -> list[str]:
    """Lines of one table, a program each, of another of what meshes share, of one of our kernels, and how many programs
    are in order."""
    ordered = sorted(found, key=lambda evidence: (evidence.program, -evidence.layers, evidence.chip))
    lines = _aligned([HEAD, *(_cells(evidence, found) for evidence in ordered)])
    good = sum(not faults(evidence) for evidence in found)
    return [*lines, "", *_meshes(ordered), *_usage(ordered), f"{good} of {len(found)} programs are as they should be."]


def _meshes(found: Sequence[Evidence]) -> list[str]:
    """What the GPUs of a mesh send each other in one run of a program, and the weights that they share or all have."""
    lines = [
        (
            evidence.program,
            str(evidence.layers or ""),
            str(evidence.devices),
            *(str(evidence.collectives.get(kind, 0)) for kind in ("all-reduce", "all-gather")),
            f"{evidence.most_sent / 1e6:.2f}",
            *(f"{size / 1e9:.3f}" for size in (evidence.split, evidence.held, evidence.whole)),
        )
        for evidence in found
        if evidence.devices > 1
    ]
    return [*_aligned([MESH, *lines]), ""] if lines else []


def _usage(found: Sequence[Evidence]) -> list[str]:
    """What our kernels take of a multiprocessor: a line for each launch that differs from all others."""
    lines: dict[tuple[str, ...], str] = {}
    for evidence in found:
        for usage in evidence.usage:
            counts = (str(usage[name]) for name in ("blocks", "threads", "registers", "spilled", "shared"))
            kernel = re.sub(r"__\d+$", "", usage["kernel"])
            shares = f"{usage['occupancy']:.2f}", f"{usage['waves']:.2f}"
            lines.setdefault((kernel, evidence.chip, *counts, *shares), evidence.program)
    return [*_aligned([USAGE, *sorted((*line, program) for line, program in lines.items())]), ""] if lines else []


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


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
        f"{evidence.weight_reads:.2f}" if evidence.weight_reads else "",
        f"{evidence.weight_share:.3f}" if evidence.weight_share else "",
        f"{evidence.seconds:.0f}",
        "; ".join(fault.partition(":")[0] for fault in faults(evidence)) or "ok",
    )
