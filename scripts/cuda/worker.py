"""`python -m scripts.cuda.worker CHIP BUILDER ARGUMENTS DUMP`: compiles what a builder makes; prints JSON lines.

BUILDER is `module:function`, ARGUMENTS a JSON object; the function takes the chip and the arguments and returns
programs. A program that does not compile is evidence too.
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

from jaxphoton.engine.gpus import CHIPS, Gpu, compile_for
from scripts.cuda import evidence
from scripts.cuda.evidence import Evidence
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
            compiled = compile_for(chip, checked, program.arguments, program.donated, program.options)
    except Exception as error:  # whatever it is, it is the program's fault and is reported with its name
        text = f"{type(error).__name__}: {error}"[:1000]
        return Evidence(program.name, chip.name, program.layers, time.monotonic() - started, text)
    seconds = time.monotonic() - started
    facts = evidence.read(program, chip, dump, compiled.memory_analysis())
    return Evidence(program.name, chip.name, program.layers, seconds, **facts)


def main() -> None:
    chip, builder, arguments, dump = CHIPS[sys.argv[1]], sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4])
    module, _, function = builder.partition(":")
    for program in getattr(importlib.import_module(module), function)(chip, **arguments):
        print(json.dumps(dataclasses.asdict(examine(program, chip, dump))), flush=True)


if __name__ == "__main__":
    main()
