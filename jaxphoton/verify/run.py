"""Runs golden models case by case."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from jax.typing import DTypeLike

from jaxphoton.image.ways import Resize
from jaxphoton.models.registry import companion
from jaxphoton.verify.bench import Bench
from jaxphoton.verify.golden import CROPS, Case, GoldenModel
from jaxphoton.verify.report import TOLERANCE, CaseReport, Findings, judge
from jaxphoton.weights.load import Placing, load_model

CASES = "checks.cases"


def run_model(
    golden: GoldenModel,
    dtype: DTypeLike,
    placing: Placing = None,
    judged: bool = True,
    resize: Resize = "exact",
) -> Iterator[CaseReport]:
    """Yields one report a case. An error inside a check fails that case alone.

    With a fast `resize` the network sees other crops than those recorded: cases of `GENERATED` are judged alone, and of
    these what is no float (tokens, bins) must be as recorded; errors are reported.

    The checks are those of the model's family: `CHECKS`, of (pattern of case names, check(bench, case, findings)), the
    `Bench` that they take, and `GENERATED`, the pattern of texts, boxes, points, in the module `CASES` of its folder.

    Raises:
      WeightsError, ConfigError: the model itself cannot be loaded.
      ValueError: its family has no checks.
    """
    family, params = load_model(golden.weights, dtype, placing)
    checks, exact = companion(family, CASES), resize == "exact"
    bench = checks.Bench(golden, params, family, resize)
    for name in cases_of(golden, checks):
        shown = exact or bool(re.fullmatch(checks.GENERATED, name))
        yield run_case(bench, name, judged and shown, TOLERANCE if exact else math.inf)


def cases_of(golden: GoldenModel, checks: ModuleType) -> list[str]:
    """Its cases; of crops that families share the photos of, a family has those that it checks."""
    return [name for name in golden.case_names() if not name.startswith(CROPS) or _check(checks, name)]


def run_case(bench: Bench, name: str, judged: bool = True, tolerance: float = TOLERANCE) -> CaseReport:
    findings, case = Findings(), bench.golden.case(name)
    check = _check(companion(bench.family, CASES), name)
    if check is None:
        findings.faults.append("unknown case: this build has no check for it")
        return judge(name, findings, True, tolerance)
    try:
        check(bench, case, findings)
    except Exception as error:  # a broken case must not hide the others
        findings.faults.append(f"{type(error).__name__}: {error}")
    if case.unread:
        findings.faults.append(f"not checked: {', '.join(case.unread)}")
    return judge(name, findings, judged, tolerance)


def _check(checks: ModuleType, name: str) -> Callable[[Any, Case, Findings], None] | None:
    return next((check for pattern, check in checks.CHECKS if re.fullmatch(pattern, name)), None)


def packaged_golden() -> tuple[Path, Path]:
    """The golden directory of the shipped model, and the model's own folder."""
    assets = Path(__file__).parents[1] / "assets" / "shapes"
    return assets / "golden", assets
