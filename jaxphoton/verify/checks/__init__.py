"""One function a case: check(bench, case, findings)."""
