"""Runs golden models case by case."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from jax.typing import DTypeLike

from jaxphoton.models.registry import companion
from jaxphoton.verify.bench import Bench
from jaxphoton.verify.golden import GoldenModel
from jaxphoton.verify.report import CaseReport, Findings, judge
from jaxphoton.weights.load import Placing, load_model

CASES = "checks.cases"


def run_model(
    golden: GoldenModel, dtype: DTypeLike, placing: Placing = None, judged: bool = True
) -> Iterator[CaseReport]:
    """Yields one report a case. An error inside a check fails that case alone.

    The checks are those of the model's family: `CHECKS`, of (pattern of case names, check(bench, case, findings)), and
    the `Bench` that they take, in the module `CASES` of its folder.

    Raises:
      WeightsError, ConfigError: the model itself cannot be loaded.
      ValueError: its family has no checks.
    """
    family, params = load_model(golden.weights, dtype, placing)
    bench = companion(family, CASES).Bench(golden, params, family)
    for name in golden.case_names():
        yield run_case(bench, name, judged)


def run_case(bench: Bench, name: str, judged: bool = True) -> CaseReport:
    findings, case = Findings(), bench.golden.case(name)
    check = next(
        (check for pattern, check in companion(bench.family, CASES).CHECKS if re.fullmatch(pattern, name)), None
    )
    if check is None:
        findings.faults.append("unknown case: this build has no check for it")
        return judge(name, findings, judged=True)
    try:
        check(bench, case, findings)
    except Exception as error:  # a broken case must not hide the others
        findings.faults.append(f"{type(error).__name__}: {error}")
    if case.unread:
        findings.faults.append(f"not checked: {', '.join(case.unread)}")
    return judge(name, findings, judged)


def packaged_golden() -> tuple[Path, Path]:
    """The golden directory of the shipped model, and the model's own folder."""
    assets = Path(__file__).parents[1] / "assets" / "shapes"
    return assets / "golden", assets
