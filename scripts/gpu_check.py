"""Everything that needs a GPU, in one command on a machine without a network:

    PYTHONPATH=. python scripts/gpu_check.py --out results --only engine --goldens DIR

Each part runs in a process of its own under a time limit; one that fails or hangs is reported and the rest goes on.
Writes `gpu_check.json` to the folder given and prints a table. `--model small` runs the same on any machine, to test
this script; its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = {"device": 60, "verify": 120, "step": 150, "graph": 120, "host": 60}
GROUPS = {"engine": ("device", "verify", "step", "graph", "host")}


def run_part(name: str, args: argparse.Namespace) -> dict:
    """Runs one part in its own process; its last line of output is JSON."""
    command = [sys.executable, "-m", "scripts.gpu.parts", name, "--model", args.model]
    if args.goldens:
        command += ["--goldens", str(args.goldens)]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        environment["GPU_CHECK_SCRATCH"] = scratch
        if name == "graph":
            flags = "--xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*step.*"
            environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} --xla_dump_to={scratch} {flags}"
        try:
            done = subprocess.run(
                command, cwd=root, env=environment, capture_output=True, text=True, timeout=SECONDS[name]
            )
        except subprocess.TimeoutExpired:
            return {"error": f"still running after {SECONDS[name]} s"}
    result = _last_json(done.stdout)
    if done.returncode or result is None:
        return {"error": done.stderr.strip()[-1500:] or f"exit code {done.returncode}"}
    return {**result, "seconds": round(time.monotonic() - started, 1)}


def _last_json(text: str) -> dict | None:
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    return None


def show(name: str, result: dict) -> None:
    print(f"== {name}")
    for key, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            print("   " + "  ".join(f"{column:>16}" for column in value[0]))
            for row in value:
                print(
                    "   "
                    + "  ".join(f"{cell:>16.4g}" if isinstance(cell, float) else f"{cell:>16}" for cell in row.values())
                )
        else:
            print(f"   {key}: {value}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder for gpu_check.json")
    parser.add_argument("--only", action="append", metavar="PART", help=f"a group or part: {[*GROUPS, *SECONDS]}")
    parser.add_argument("--goldens", type=Path, help="a golden directory for the verify part")
    parser.add_argument("--model", choices=["moondream2", "small"], default="moondream2")
    args = parser.parse_args()
    wanted = [part for name in args.only or GROUPS for part in GROUPS.get(name, (name,))]
    unknown = sorted(set(wanted) - set(SECONDS))
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}")
    results = {}
    args.out.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        results[name] = run_part(name, args)
        show(name, results[name])
        (args.out / "gpu_check.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 1 if any("error" in result for result in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
