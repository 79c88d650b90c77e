"""The decoder: prefill, decoding, texts with an image and without one, rotary frequencies, sampling."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxphoton.layers.rope import rotary_tables
from jaxphoton.models.llama import network as text
from jaxphoton.models.llama.checks.bench import LlamaBench
from jaxphoton.models.llama.config import RopeConfig, TextConfig
from jaxphoton.models.protocol import Prompt
from jaxphoton.oracle import sampling
from jaxphoton.oracle.oracle import Picture
from jaxphoton.requests.tokens import Token
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings

# Of Llama 3.1, which recorded tables of real frequencies are for.
REAL = TextConfig(rope=RopeConfig(500_000.0, "llama3", 8.0, 1.0, 4.0, 8192))
TEMPERATURE, TOP_P = 0.6, 0.9  # of recorded probabilities


def check_prefill(bench: LlamaBench, case: Case, findings: Findings) -> None:
    picture = bench.image(case)
    trace = bench.trace(bench.prompt(case["prompt"], picture, findings), picture)
    findings.close("layer_hidden", trace.hidden, case["layer_hidden"])
    findings.close("final_normed_last", trace.normed[-1], case["final_normed_last"])
    logits = case["logits"]
    findings.close("logits", trace.logits[-len(logits) :], logits)


def check_decode(bench: LlamaBench, case: Case, findings: Findings) -> None:
    """Plain greedy ids behind the prefill case: what would end a text does not."""
    before = bench.golden.case(case.facts["continues"])
    picture, ids = bench.image(before), case["tokens"].tolist()
    prompt = bench.prompt(before["prompt"], picture, findings)
    free = bench.generate(bench.oracle, prompt, picture, "free", len(ids))
    findings.equal("tokens", [token.id for token in free.tokens], ids)
    predictions = bench.oracle.replay(prompt, picture, [Token(i) for i in ids])
    findings.close("logits", [each.logits for each in predictions[: len(ids)]], case["logits"])
    findings.close("hidden", [each.hidden for each in predictions[1:]], case["hidden"])


def check_text(bench: LlamaBench, case: Case, findings: Findings) -> None:
    """A prompt and what follows it; it is about a picture where the facts name one."""
    picture = bench.image(case)
    compare_text(bench, bench.prompt(case["prompt"], picture, findings), picture, case, findings)


def compare_text(bench: LlamaBench, prompt: Prompt, picture: Picture | None, case: Case, findings: Findings) -> None:
    """Row i of the recorded logits selects token i: those of the first token alone, of each, or of the end, too."""
    ids, logits = case["tokens"].tolist(), np.atleast_2d(case["logits"])
    generation = bench.generate(bench.oracle, prompt, picture, "text", len(ids) + 1)
    findings.equal("tokens", [token.id for token in generation.content][: len(ids)], ids)
    predictions = bench.oracle.replay(prompt, picture, [Token(i) for i in ids])
    findings.close("logits", [each.logits for each in predictions[: len(logits)]], logits)
    if len(logits) > len(ids):
        last = int(np.argmax(logits[-1]))
        findings.equal("stop_id", last, case.facts.get("stop_id", last))
        ended = generation.finish_reason == "stop" and generation.tokens[-1].id == last
        findings.equal("stops by itself", ended, last in bench.family.stop_ids)


def check_text_only(bench: LlamaBench, case: Case, findings: Findings) -> None:
    prompt = bench.prompt(case["prompt"], None, findings)
    findings.close("layer_hidden", bench.trace(prompt, None).hidden, case["layer_hidden"])
    compare_text(bench, prompt, None, case, findings)


def check_rope(bench: LlamaBench, case: Case, findings: Findings) -> None:
    frequencies = text.frequencies(bench.family.config.text)
    findings.close("inv_freq", frequencies, case["inv_freq"])
    if "positions" in case:
        cos, sin = rotary_tables(jnp.asarray(case["positions"])[None], frequencies)
        findings.close("cos", np.asarray(cos)[0, :, 0], case["cos"])
        findings.close("sin", np.asarray(sin)[0, :, 0], case["sin"])


def check_real_rope(bench: LlamaBench, case: Case, findings: Findings) -> None:
    findings.close("inv_freq", text.frequencies(REAL), case["inv_freq"])


def check_sampling(bench: LlamaBench, case: Case, findings: Findings) -> None:
    """What the oracle's own sampler draws from."""
    found = []
    for row in case["logits"]:
        probabilities = np.exp(sampling.log_softmax(row / TEMPERATURE))
        kept = np.where(sampling.top_p_keep(probabilities, TOP_P), probabilities, 0)
        found.append(kept / kept.sum())
    findings.close("probs", found, case["probs"])
