"""What a check found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TOLERANCE = 1e-4


@dataclass(slots=True)
class Findings:
    """Collected while one case runs.

    Attributes:
      max_error: largest absolute difference of any float array.
      faults: what is wrong beyond numbers (other tokens, other shapes, an array nobody checked).
    """

    max_error: float = 0.0
    faults: list[str] = field(default_factory=list)

    def close(self, name: str, got: Any, expected: Any) -> None:
        """Compares floats; the difference goes into `max_error`."""
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        if got.shape != expected.shape:
            self.faults.append(f"{name}: shape {list(got.shape)} instead of {list(expected.shape)}")
            return
        if not np.isfinite(got).all():
            self.faults.append(f"{name}: not finite")
            return
        self.max_error = max(self.max_error, float(np.max(np.abs(got - expected), initial=0.0)))

    def equal(self, name: str, got: Any, expected: Any) -> None:
        """Compares what must be the same to the last digit: ids, bins, masks, pixels."""
        got, expected = np.asarray(got), np.asarray(expected)
        if got.shape != expected.shape or not np.array_equal(got, expected):
            self.faults.append(f"{name}: {_brief(got)} instead of {_brief(expected)}")


@dataclass(frozen=True, slots=True)
class CaseReport:
    """One case's outcome; `passed` is None where nothing is judged, `tolerance` infinite where errors are not."""

    name: str
    max_error: float
    tolerance: float
    passed: bool | None
    faults: tuple[str, ...]

    def line(self) -> str:
        verdict = {True: "pass", False: "FAIL", None: "-"}[self.passed]
        text = f"{self.name:<26} {self.max_error:10.3e}  {self.tolerance:.0e}  {verdict}"
        return "\n".join([text, *(f"    {fault}" for fault in self.faults)])

    def as_json(self) -> dict[str, Any]:
        return {
            "max_error": self.max_error,
            "tolerance": self.tolerance if math.isfinite(self.tolerance) else None,
            "passed": self.passed,
            "faults": list(self.faults),
        }


def judge(name: str, findings: Findings, judged: bool, tolerance: float = TOLERANCE) -> CaseReport:
    passed = findings.max_error <= tolerance and not findings.faults
    return CaseReport(name, findings.max_error, tolerance, passed if judged else None, tuple(findings.faults))


def _brief(array: np.ndarray) -> str:
    return str(array.tolist()) if array.size <= 24 else f"another array of shape {list(array.shape)}"
