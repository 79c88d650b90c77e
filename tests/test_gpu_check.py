"""The GPU check runs from end to end on any machine in miniature; only its figures need a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_part_runs_and_an_unknown_one_is_refused(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), "--model", "small", "--out", str(tmp_path)]
    subprocess.run([*command, "--only", "device", "--only", "host"], check=True, timeout=300)
    results = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert set(results) == {"device", "host"}
    assert results["device"]["copy_gb_s"] > 0
    assert [row["rows"] for row in results["host"]["ticks"]] == [8, 64]
    refused = subprocess.run([*command, "--only", "levitation"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "unknown part levitation" in refused.stderr


def test_a_part_that_fails_is_reported_and_the_others_go_on(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), "--model", "small", "--out", str(tmp_path)]
    broken = [*command, "--goldens", str(tmp_path / "nowhere"), "--only", "verify", "--only", "device"]
    assert subprocess.run(broken, capture_output=True, timeout=300).returncode == 1
    results = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert "nowhere" in results["verify"]["error"] and "error" not in results["device"]
