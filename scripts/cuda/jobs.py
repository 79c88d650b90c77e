"""What is compiled, by two processes at a time; jobs share processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.cuda.evidence import Evidence
from scripts.cuda.plugin import ROOT, environment
from scripts.gpu.ops import NAMES as OPS

PROCESSES = 2  # XLA compiles with several threads itself
SHARED = 8  # jobs of a process: a small one takes less time than jax to be imported
SECONDS = 900  # a job
CHIPS = ("h200", "a100", "l40s")
JOB_ENDS = "{}"  # a worker's line between the evidence of jobs
FULL, CUT = 24, 2  # text layers of Moondreams and SmolVLM2, and of what is quick to compile
FORMS = ({}, {"form": "fused"})  # of a step's layers
SEEN = 8  # so many that one kernel more in each is more than the limit leaves
SLOTS = 4  # of adapters
EXPERTS_CUT = 6  # of Moondream 3: two of them have experts
FUSED_EXPERTS = {"model": "moondream3", "form": "fused"}
FUSED_TAU = {**FUSED_EXPERTS, "experts": False}  # its dense layers, in all places


@dataclass(frozen=True)
class Job:
    """Programs that one process compiles: those that `builder` ("module:function") makes of the arguments."""

    chip: str
    builder: str
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return dict(self.arguments).get("op") or self.builder.partition(":")[2]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.arguments if name != "op")])


def program(chip: str, name: str, **arguments: Any) -> Job:
    return Job(chip, f"scripts.cuda.programs:{name}", tuple(arguments.items()))


def _all() -> tuple[Job, ...]:
    """What `make cuda-check` compiles, the longest first."""
    steps = [program("h200", "step", rows=rows, layers=FULL, model="moondream3") for rows in (1, 8)]
    steps += [program("h200", "step", rows=rows, layers=FULL, **FUSED_EXPERTS) for rows in (1, 8, 32)]
    steps += [program("h200", "step", rows=rows, layers=FULL, **FUSED_TAU) for rows in (1, 8, 32)]
    steps += [program("h200", "prefix", images=images, layers=FULL, model="moondream3") for images in (1, 4)]
    steps += [program("h200", "prefill", rows=4, length=128, layers=FULL, model="moondream3")]
    steps += [program(c, "step", rows=r, layers=FULL, **form) for form in FORMS for r in (1, 8, 32) for c in CHIPS]
    for quantize in ("int8", "int4"):
        steps += [program("h200", "step", rows=rows, layers=FULL, quantize=quantize) for rows in (1, 8, 32)]
        steps += [program("h200", "step", rows=r, layers=FULL, quantize=quantize, adapters=SLOTS) for r in (1, 8, 32)]
        steps += [program("h200", "prefill", rows=4, length=128, layers=FULL, quantize=quantize)]
    steps += [program("h200", "prefix", images=1, layers=FULL, quantize="int4")]
    steps += [program("h200", "step", rows=rows, layers=FULL, adapters=SLOTS) for rows in (1, 8, 32)]
    steps += [program("h200", "step", rows=8, layers=EXPERTS_CUT, model="moondream3", adapters=SLOTS)]
    steps += [program("h200", "prefix", images=1, layers=EXPERTS_CUT, model="moondream3", adapters=SLOTS)]
    steps += [program("h200", "step", rows=8, layers=EXPERTS_CUT, model="moondream3", quantize="int4")]
    steps += _meshes() + _others()
    others = [
        job
        for chip in CHIPS
        for job in (
            program(chip, "prefill", rows=4, length=128, layers=FULL),
            program(chip, "prefix", images=1, layers=FULL),
            program(chip, "encode", images=1, crops=5),
            *(program(chip, "step", rows=rows, layers=CUT, **form) for form in FORMS for rows in (1, 8, 32)),
            program(chip, "step", rows=8, layers=EXPERTS_CUT, model="moondream3"),
            program(chip, "step", rows=8, layers=EXPERTS_CUT, **FUSED_TAU),
            program(chip, "halves", rows=8, layers=CUT),
        )
    ]
    return (*steps, *others, *_kernels(), Job("h200", "scripts.cuda.plain_products:plain_products"))


def _meshes() -> list[Job]:
    """Programs that several GPUs run together."""
    steps = [("moondream3", mesh) for mesh in ("model=2", "expert=4", "model=2,expert=2", "model=2,expert=4")]
    steps += [("moondream2", mesh) for mesh in ("model=2", "model=8")]
    return [
        *(program("h200", "step", rows=8, layers=FULL, model=model, mesh=mesh) for model, mesh in steps),
        program("h200", "prefill", rows=4, length=128, layers=FULL, mesh="model=2"),
        program("h200", "prefix", images=1, layers=FULL, model="moondream3", mesh="model=2"),
        program("h200", "encode", images=1, crops=5, mesh="model=2"),
    ]


def _others() -> list[Job]:
    """Programs of models that are no Moondream, in full."""
    joycaption, rows = {"layers": 32, "model": "joycaption"}, (1, 8, 32)
    return [
        *(program("h200", "step", rows=count, **joycaption, **form) for form in FORMS for count in rows),
        *(program("h200", "step", rows=count, **joycaption, quantize="int4") for count in rows),
        *(program("h200", "step", rows=count, **joycaption, adapters=SLOTS) for count in (1, 8)),
        program("h200", "step", rows=8, **joycaption, mesh="model=2"),
        program("h200", "prefill", rows=4, length=128, **joycaption),
        *(program("h200", "prefix", images=images, **joycaption) for images in (1, 4)),
        *(program("h200", "encode", images=images, crops=images, model="joycaption") for images in (1, 4)),
        *(program("h200", "step", rows=count, layers=FULL, model="smolvlm2") for count in (8, 32)),
        program("h200", "prefix", images=1, layers=FULL, model="smolvlm2"),
        program("h200", "encode", images=1, crops=13, model="smolvlm2"),
    ]


def _ci() -> tuple[Job, ...]:
    """The part of it that every run of the tests compiles."""
    return (
        program("h200", "step", rows=8, layers=SEEN),
        program("h200", "encode", images=1, crops=2),
        program("h200", "prefill", rows=4, length=128, layers=CUT),
        program("h200", "step", rows=8, layers=CUT, form="fused"),
        program("h200", "step", rows=8, layers=EXPERTS_CUT, model="moondream3"),
        program("h200", "step", rows=8, layers=EXPERTS_CUT, **FUSED_TAU),
        program("h200", "prefix", images=1, layers=EXPERTS_CUT, model="moondream3"),
        program("l40s", "step", rows=8, layers=CUT),
        program("h200", "step", rows=8, layers=CUT, quantize="int4"),
        program("h200", "step", rows=8, layers=CUT, adapters=SLOTS),
        program("h200", "step", rows=8, layers=CUT, mesh="model=2"),
        program("h200", "step", rows=8, layers=CUT, model="joycaption", form="fused"),
        # Other chips, and the products of few bits that no program above has, are for the whole check.
        *(job for job in _kernels() if job.chip == "h200" and job.name != "quant_matmul"),
    )


def _kernels() -> list[Job]:
    return [Job(chip, "scripts.cuda.kernels:cases", (("op", op),)) for op in OPS for chip in CHIPS]


def run(jobs: Iterable[Job], plugin: Path) -> Iterator[tuple[Job, list[Evidence]]]:
    """Every job with its evidence, in the order in which their processes end."""
    waiting = list(jobs)
    together = [waiting[first : first + SHARED] for first in range(0, len(waiting), SHARED)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        for done in as_completed([pool.submit(run_together, group, plugin) for group in together]):
            yield from done.result()


def run_together(jobs: list[Job], plugin: Path) -> list[tuple[Job, list[Evidence]]]:
    """Jobs one after the other in one process; another goes on where one died."""
    found: list[tuple[Job, list[Evidence]]] = []
    while len(found) < len(jobs):
        found += _process(jobs[len(found) :], plugin)
    return found


def _process(jobs: list[Job], plugin: Path) -> list[tuple[Job, list[Evidence]]]:
    """The jobs that a process did, the one at which it died among them: that is evidence too."""
    with tempfile.TemporaryDirectory() as dump:
        told = json.dumps([(job.chip, job.builder, dict(job.arguments)) for job in jobs])
        command = [sys.executable, "-m", "scripts.cuda.worker", told, dump]
        environ, limit = environment(plugin, Path(dump)), SECONDS * len(jobs)
        try:
            done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=limit)
            said, fault = done.stdout, _ending(done.returncode, done.stderr) if done.returncode else ""
        except subprocess.TimeoutExpired as late:
            said, fault = (late.stdout or b"").decode(), f"still compiling after {limit} s"
    found: list[list[Evidence]] = [[]]
    for line in filter(lambda line: line.startswith("{"), said.splitlines()):
        if line == JOB_ENDS:
            found.append([])
        else:
            found[-1].append(Evidence(**json.loads(line)))
    if fault:
        at = min(len(found), len(jobs)) - 1
        found[at].append(_failed(jobs[at], fault))
    return list(zip(jobs, found, strict=False))


def _ending(code: int, stderr: str) -> str:
    """How a process ended: a compiler that crashes takes it along, and often leaves only a trace of addresses."""
    how = f"exit code {code}" if code > 0 else f"killed: {signal.strsignal(-code) or -code}"
    return f"{how}: {stderr.strip()[-1000:]}".rstrip(": ")


def _failed(job: Job, error: str) -> Evidence:
    return Evidence(str(job), job.chip, dict(job.arguments).get("layers", 0), 0.0, error)


ALL, CI = _all(), _ci()
