"""Prompts from messages, and files of both generations."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from jaxphoton.layers.spec import by_path
from jaxphoton.models.joycaption.checks.bench import JoyCaptionBench
from jaxphoton.models.llama.checks import text
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings


def check_prefill(bench: JoyCaptionBench, case: Case, findings: Findings) -> None:
    _check_chat(bench, case, findings)
    text.check_prefill(bench, case, findings)
    if (newer := bench.newer()) is not None:
        family, params = newer
        settings = dataclasses.asdict(bench.family.config) | {"generation": None}  # of a file beside both
        same = dataclasses.asdict(family.config) | {"generation": None} == settings
        findings.equal("settings of the newer form", same, True)
        ours, theirs = (by_path(jax.device_get(each)) for each in (bench.params, params))
        findings.equal("tensors of the newer names", sorted(theirs), sorted(ours))
        for path in ours:
            findings.equal(f"{path} of the newer names", theirs[path], ours[path])


def check_text(bench: JoyCaptionBench, case: Case, findings: Findings) -> None:
    _check_chat(bench, case, findings)
    text.check_text(bench, case, findings)


def _check_chat(bench: JoyCaptionBench, case: Case, findings: Findings) -> None:
    """The recorded ids are those of the rendered messages."""
    ids = bench.written(bench.chat(case.facts["text"]), bench.image(case))
    findings.equal("prompt of the messages", ids, np.asarray(case["prompt"]))
