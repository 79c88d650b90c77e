"""Prompts from messages, and what follows them."""

from __future__ import annotations

from jaxphoton.models.llama.checks import text
from jaxphoton.models.smolvlm.checks import vision
from jaxphoton.models.smolvlm.checks.bench import UNSPLIT, SmolVLMBench
from jaxphoton.oracle.oracle import Picture
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings


def check_prompt(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    """The recorded ids are those of the rendered messages."""
    _check_chat(bench, bench.image(case), case, findings)


def check_prefill(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    check_prompt(bench, case, findings)
    text.check_prefill(bench, case, findings)


def check_text(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    check_prompt(bench, case, findings)
    text.check_text(bench, case, findings)


def check_text_only(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    check_prompt(bench, case, findings)
    text.check_text_only(bench, case, findings)


def check_image(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    """A picture, and what is said of it where that is recorded."""
    vision.check_image(bench, case, findings)
    if "prompt" in case:
        _check_about(bench, bench.picture(case.name), case, findings)


def check_unsplit(bench: SmolVLMBench, case: Case, findings: Findings) -> None:
    picture = bench.picture(f"image{case.facts['image']}{UNSPLIT}")
    _check_chat(bench, picture, case, findings)
    _check_about(bench, picture, case, findings)


def _check_chat(bench: SmolVLMBench, picture: Picture | None, case: Case, findings: Findings) -> None:
    findings.equal("prompt of the messages", bench.written(bench.chat(case.facts["text"]), picture), case["prompt"])


def _check_about(bench: SmolVLMBench, picture: Picture, case: Case, findings: Findings) -> None:
    text.compare_text(bench, bench.prompt(case["prompt"], picture, findings), picture, case, findings)
