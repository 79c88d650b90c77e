"""Everything that needs a GPU, in one command on a machine without a network:

    PYTHONPATH=. python scripts/gpu_check.py --out results

Each part runs in processes of its own under a time limit; one that fails or hangs is reported, with what it had found
until then, and the rest goes on. Writes `gpu_check.json`, the readable `gpu_check.txt` and each part's log to the
folder given, and the fastest forms of a step as a file for `jaxphoton/configs/gpus`; benchmarks/README.md says how to
read them. `--model small` runs the same on any machine, to test this script; its times mean nothing. Of other models
(`--model joycaption`) fewer parts are run: steps, pictures, captions and the operations, all of the model's sizes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from jaxphoton.config.gpus import file_name  # noqa: E402
from scripts.gpu.table import render  # noqa: E402
from scripts.models import is_small  # noqa: E402

LEAST_SECONDS = 15  # a part is not begun with less left


@dataclass(frozen=True)
class Part:
    """How a part is run.

    Attributes:
      seconds: its limit.
      function: its name in scripts/gpu/parts.py; None for the same.
      xla_flags, environment: what its process gets besides.
      cache: whether it may use what other parts have compiled.
      dump: whether XLA writes down what it makes of the step.
    """

    seconds: int
    function: str | None = None
    xla_flags: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    cache: bool = True
    dump: bool = False


# Two where there is no GPU; the number of GPUs it does not change.
DEVICES = {"JAX_NUM_CPU_DEVICES": "2"}
# Other flags: compiled afresh, since a cache of autotuned kernels may not tell them apart.
FLAGS = {
    "flag-none": Part(45, "flag"),
    "flag-no-triton-gemm": Part(60, "flag", "--xla_gpu_enable_triton_gemm=false", cache=False),
    "flag-async-dispatch": Part(45, "flag", environment={"PJRT_GPU_ENABLE_ASYNC_DISPATCH": "1"}),
    "flag-no-graphs": Part(60, "flag", "--xla_gpu_enable_command_buffer=", cache=False),
    "flag-small-graphs": Part(60, "flag", "--xla_gpu_graph_min_graph_size=1", cache=False),
    "flag-none-again": Part(45, "flag"),  # how far two runs of one thing are apart
}
# The most telling first: time may run out.
PARTS = {
    "device": Part(45),
    "kernels": Part(130),
    "step": Part(150, dump=True),
    "equality": Part(75),
    "forms": Part(180),
    "encode": Part(100),
    "captions": Part(90),
    "variants": Part(90),
    "verify": Part(75),
    "executables": Part(120),
    "mesh": Part(180, environment=DEVICES),
    # Its sums outside of the CUDA graphs, as XLA has it by default.
    "mesh-launches": Part(150, "mesh_steps", "--xla_gpu_enable_command_buffer=-COLLECTIVES", DEVICES, cache=False),
    "callback": Part(75),
    **FLAGS,
    "sweep": Part(75),
    "products": Part(90),
    "attention": Part(75),
    "host": Part(45),
}
GROUPS = {"flags": tuple(FLAGS), "correct": ("kernels", "equality", "verify"), "model": ("step", "encode", "captions")}
GROUPS["meshes"] = ("mesh", "mesh-launches")
# Of models that are no Moondream: the others are of its layers, its goldens or no model at all.
OTHERS = ("device", "kernels", "step", "encode", "captions", "forms", "mesh-launches")
MOONDREAMS = ("moondream2", "moondream3", "small")
OTHER_MODELS = ("joycaption", "smolvlm2", "small-joycaption", "small-smolvlm2")


def run_part(name: str, args: argparse.Namespace, scratch: Path, limit: float) -> dict[str, Any]:
    """Runs one part in its own processes, all of which are gone afterwards."""
    part, started = PARTS[name], time.monotonic()
    result, dump, log = scratch / f"{name}.json", scratch / f"{name}-dump", args.out / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "scripts.gpu.parts", part.function or name]
    command += ["--result", str(result), "--model", args.model]
    if args.goldens:
        command += ["--goldens", str(args.goldens)]
    environment = _environment(part, scratch, dump)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
            fault = "" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            fault = f"still running after {limit:.0f} s"
        finally:
            _kill(process)
    found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    if fault or not found:
        tail = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
        found["error"] = f"{fault or 'nothing was found'}\n{tail}"
    for file in dump.glob("*thunk_sequence_after_thunk_passes.txt"):
        shutil.copy(file, log.parent)
    return {**found, "seconds": round(time.monotonic() - started, 1)}


def _environment(part: Part, scratch: Path, dump: Path) -> dict[str, str]:
    environment = {**os.environ, **part.environment}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    flags = [os.environ.get("XLA_FLAGS", ""), part.xla_flags]
    if part.dump:
        flags.append(f"--xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*step.*")
        environment["GPU_CHECK_DUMP"] = str(dump)
    environment["XLA_FLAGS"] = " ".join(filter(None, flags))
    if part.cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(scratch / "compiled")
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    else:
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return environment


def _kill(process: subprocess.Popen) -> None:
    """The part and whatever it has started: they are a group of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def failed(result: dict[str, Any]) -> bool:
    return "error" in result or any(result.get("failed", ()))


def keep_forms(out: Path, head: dict[str, Any], found: dict[str, Any]) -> Path | None:
    """Writes what the part `forms` has chosen as a file for `jaxphoton/configs/gpus`; None if it has not."""
    if not found.get("step_forms"):
        return None
    kind = found["device_kind"]
    data = {"device_kind": kind, "step_forms": found["step_forms"]}
    data["measured"] = {**head, "layers": found["layers"], "forms": found["forms"]}
    file = out / f"{file_name(kind)}.json"
    file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return file


def commit() -> str:
    """Of the checkout; "unknown" where there is none."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def wanted_parts(parser: argparse.ArgumentParser, names: list[str] | None, model: str) -> list[str]:
    known = PARTS if model in MOONDREAMS else OTHERS
    parts = [part for name in names or known for part in GROUPS.get(name, (name,))]
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; there are {', '.join([*GROUPS, *PARTS])}")
    if others := [part for part in dict.fromkeys(parts) if part not in known]:
        parser.error(f"{model} has no part {', '.join(others)}; it has {', '.join(known)}")
    return list(dict.fromkeys(parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder for the results")
    parser.add_argument("--only", action="append", metavar="PART", help=f"a group or part: {[*GROUPS, *PARTS]}")
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of all together; the rest is skipped")
    parser.add_argument("--goldens", type=Path, help="a golden directory for the verify part")
    parser.add_argument("--model", choices=[*MOONDREAMS, *OTHER_MODELS], default="moondream2")
    args = parser.parse_args()
    wanted = wanted_parts(parser, args.only, args.model)
    args.out, args.goldens = args.out.resolve(), args.goldens and args.goldens.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    end, date = time.monotonic() + 60 * args.minutes, datetime.datetime.now(datetime.UTC)
    head = {"date": date.isoformat(timespec="seconds"), "commit": commit(), "model": args.model}
    head["python"] = sys.version.split()[0]
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for name in wanted:
            left = end - time.monotonic()
            if left < LEAST_SECONDS:
                results[name] = {"skipped": "no time left"}
            else:
                # Machines for the small model are slow, and often busy.
                limit = PARTS[name].seconds * (5 if is_small(args.model) else 1)
                results[name] = run_part(name, args, Path(scratch), min(left, limit))
            state = "FAILED" if failed(results[name]) else "skipped" if "skipped" in results[name] else "ok"
            print(f"{name}: {state}, {results[name].get('seconds', 0)} s", flush=True)
            whole = {"run": head, **results}
            (args.out / "gpu_check.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
            (args.out / "gpu_check.txt").write_text(render(whole), encoding="utf-8")
    if args.model == "moondream2" and (kept := keep_forms(args.out, head, results.get("forms", {}))):
        print(f"{kept}: the fastest forms of a step; in jaxphoton/configs/gpus they become the default on such GPUs")
    print(render(whole))
    return 1 if any(failed(result) for result in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
