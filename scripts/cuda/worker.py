"""`python -m scripts.cuda.worker JOBS DUMP`: compiles what builders make; prints JSON lines, an empty object at the
end of each job.

JOBS is a JSON list of [chip, builder, arguments]. A builder is `module:function`; the function takes the chip and the
arguments, an object, and returns programs. A program that does not compile is evidence too.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jax

from jaxphoton.engine.gpus import CHIPS, Gpu, compile_for
from scripts.cuda import evidence
from scripts.cuda.evidence import Evidence
from scripts.cuda.jobs import JOB_ENDS
from scripts.cuda.programs import Program


def examine(program: Program, chip: Gpu, dump: Path) -> Evidence:
    """Compiles one program and reads what became of it."""
    for file in dump.iterdir():  # what an earlier program left
        file.unlink()
    started = time.monotonic()

    def checked(*operands: Any) -> Any:  # XLA calls the module, and its dumps, by this name
        return program.function(*operands)

    try:
        with warnings.catch_warnings():
            # A donation that cannot be used is a copy.
            warnings.filterwarnings("error", message="Some donated buffers were not usable")
            mesh = program.mesh or chip.mesh()
            compiled = compile_for(mesh, checked, program.arguments, program.donated, program.options)
    except Exception as error:  # whatever it is, it is the program's fault and is reported with its name
        text = f"{type(error).__name__}: {error}"[:1000]
        return Evidence(program.name, chip.name, program.layers, time.monotonic() - started, text)
    seconds = time.monotonic() - started
    facts = evidence.read(program, chip, dump, compiled.memory_analysis())
    return Evidence(program.name, chip.name, program.layers, seconds, **facts)


def main() -> None:
    dump = Path(sys.argv[2])
    for name, builder, arguments in json.loads(sys.argv[1]):
        chip, (module, _, function) = CHIPS[name], builder.partition(":")
        for program in getattr(importlib.import_module(module), function)(chip, **arguments):
            print(json.dumps(dataclasses.asdict(examine(program, chip, dump))), flush=True)
        print(JOB_ENDS, flush=True)
        jax.clear_caches()  # nothing of one chip is met again for another


if __name__ == "__main__":
    main()
