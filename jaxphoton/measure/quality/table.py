"""What `compare_forms` found, as lines for people and as markdown. No jax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which imports jax
    from jaxphoton.measure.quality.run import FormReport

LEGEND = """\
Of the captions (greedy): the largest and the mean difference of logits and the divergence (Kullback-Leibler, nats) at
the first positions; the share of tokens that would be chosen behind the tokens of the first form; how much of its
captions the own ones begin with; the share of equal captions."""
SCENES = """\
Of scenes: captions as the truth, boxes (F1 at an overlap of 0.5), absent kinds without a box, points inside, counts."""
Cells = Callable[["FormReport"], Sequence[str]]


def headings(reports: Sequence[FormReport]) -> list[str]:
    found = ["form", "MB", "of first", "max", "mean", "diverge", "tokens", "begin", "captions"]
    return found + [name.replace("_", " ") for name in reports[0].scores]


def cells(report: FormReport, first: FormReport) -> list[str]:
    """One line, a text a heading."""
    found = [report.name, f"{report.bytes / 1e6:.1f}", f"{report.bytes / first.bytes:.3f}"]
    if (apart := report.difference) is None:
        found += [""] * 6
    else:
        found += [f"{apart.logits_max:.3g}", f"{apart.logits_mean:.2g}", f"{apart.divergence:.2g}"]
        found += [f"{share:.4f}" for share in (apart.tokens_equal, apart.prefix_equal, apart.captions_equal)]
    return found + [f"{score:.4f}" for score in report.scores.values()]


def lines(reports: Sequence[FormReport]) -> list[str]:
    """A table in columns."""
    rows = [headings(reports), *(cells(report, reports[0]) for report in reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def markdown(title: str, reports: Sequence[FormReport]) -> str:
    """A table with its legend."""
    rows = [headings(reports), ["---", *["---:"] * (len(headings(reports)) - 1)]]
    rows += [cells(report, reports[0]) for report in reports]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"### {title}\n\n{table}\n\n{legend(reports)}\n"


def legend(reports: Sequence[FormReport]) -> str:
    return f"{LEGEND}\n{SCENES}" if reports[0].scores else LEGEND
