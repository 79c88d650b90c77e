"""Compiles the device programs and kernels for NVIDIA GPUs, without one, and checks what XLA makes of them:

    python scripts/cuda_check.py [--ci] [--chip h200] [--only step] [--out FILE]

A decode step must be one CUDA graph, update its keys and values in place, copy neither them nor a weight, and keep
under a number of kernels and of bytes; an image prefix of a model with experts must do few more operations than it
needs; every kernel must compile for every chip. Prints a table; exit code 1 if something is wrong, 2 if jax's CUDA
plugin cannot be had. The first run fetches the plugin (about 220 MB).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.cuda import jobs, plugin
from scripts.cuda.checks import faults
from scripts.cuda.table import rows_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ci", action="store_true", help="only what the tests compile")
    parser.add_argument("--chip", action="append", choices=jobs.CHIPS, help="only for this chip")
    parser.add_argument("--only", action="append", metavar="NAME", help="only programs or operations of this name")
    parser.add_argument("--out", type=Path, help="the evidence as JSON")
    args = parser.parse_args()
    wanted = [
        job
        for job in (jobs.CI if args.ci else jobs.ALL)
        if (not args.chip or job.chip in args.chip) and (not args.only or job.name in args.only)
    ]
    if not wanted:
        parser.error(f"nothing of that name; there are {', '.join(sorted({job.name for job in jobs.ALL}))}")
    try:
        place = plugin.install()
    except plugin.NoPlugin as error:
        print(error, file=sys.stderr)
        return 2
    found = []
    for _, done in jobs.run(wanted, place):
        found += done
        for evidence in done:
            print(f"{evidence.chip:5} {evidence.program}: {'; '.join(faults(evidence)) or 'ok'}", flush=True)
    if args.out:
        args.out.write_text(json.dumps([dataclasses.asdict(e) for e in found], indent=1) + "\n", encoding="utf-8")
    print("", *rows_of(found), sep="\n")
    return 1 if any(map(faults, found)) else 0


if __name__ == "__main__":
    raise SystemExit(main())
