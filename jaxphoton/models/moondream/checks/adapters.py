"""Adapters: the prompts of the model's own cases, with an adapter from a file."""

from __future__ import annotations

import numpy as np

from jaxphoton.models.adapters import Adapter
from jaxphoton.models.moondream.checks.bench import MoondreamBench
from jaxphoton.models.moondream.checks.generation import compare_text
from jaxphoton.verify.bench import plain_prompt
from jaxphoton.verify.golden import AdapterCases, Case, GoldenError
from jaxphoton.verify.report import Findings
from jaxphoton.weights.adapters import load_adapter


def check_positions(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """Where hidden states are recorded: BOS, the image's last position, and the whole prompt."""
    prefix, prompt = bench.config.text.prefix_attn, bench.golden.case("prefill")["prompt"]
    findings.equal("positions", [0, *range(prefix - 1, prefix + len(prompt))], case["positions"])


def check_adapter(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    cases, adapter = _cases(bench), _adapter(bench, case, findings)
    prefill, positions = bench.golden.case("prefill"), cases.case("prefill")["positions"]
    prompt = plain_prompt(prefill["prompt"])
    trace = bench.trace(prompt, bench.picture(f"image{cases.facts['image']}"), adapter)
    findings.close("layer_hidden", [hidden[positions] for hidden in trace.hidden], case["layer_hidden"])
    findings.close("logits", trace.logits[-len(prompt.ids) :], case["logits"])
    if "text_only_logits" in case:
        alone = plain_prompt(bench.golden.case("text_only")["prompt"][1:])
        findings.close("text_only_logits", bench.trace(alone, None, adapter).logits[-1], case["text_only_logits"])
    asked, image = bench.golden.case("caption")["prompt"], bench.picture(f"image{cases.facts['caption_image']}")
    ids, logits = case["caption_tokens"], case["caption_logits"]
    compare_text(bench, asked, image, ids[ids >= 0], logits, findings, adapter)


def _cases(bench: MoondreamBench) -> AdapterCases:
    if bench.golden.adapters is None:
        raise GoldenError("the golden files lack the folder of adapters")
    return bench.golden.adapters


def _adapter(bench: MoondreamBench, case: Case, findings: Findings) -> Adapter | None:
    """The adapter of a case, whichever of its files it is read from; None where the case has no files."""
    read = [load_adapter(bench.golden.folder / file, bench.family) for file in case.facts.get("files", [])]
    for other in read[1:]:
        findings.equal("adapter", np.frombuffer(other.digest, np.uint8), np.frombuffer(read[0].digest, np.uint8))
    return read[0] if read else None
