"""Text decoder: masks, prefill, decode, prompts without an image and with spatial references."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxphoton.functional import prompt_inputs
from jaxphoton.layers.attention import block_mask, prefix_blocks
from jaxphoton.models.moondream import inputs
from jaxphoton.models.moondream.checks.bench import MoondreamBench, tokens
from jaxphoton.models.moondream.prompts import query_prompt
from jaxphoton.verify.bench import plain_prompt
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings


def check_block_mask(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    blocks = jnp.asarray(case["ids"])[None]
    findings.equal("mask", _mask(blocks), case["mask"])


def check_prefill(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    prompt, image = plain_prompt(case["prompt"]), bench.image(case)
    trace = bench.trace(prompt, image)
    positions = case["positions"] if "positions" in case else slice(None)
    findings.close("layer_hidden", [hidden[positions] for hidden in trace.hidden], case["layer_hidden"])
    findings.close("logits", trace.logits[-len(prompt.ids) :], case["logits"])
    if "final_normed_last" not in case:
        return  # recorded in parts
    findings.close("final_normed_last", trace.normed[-1], case["final_normed_last"])
    length, prefix = len(trace.normed), bench.config.text.prefix_attn if image is not None else 0
    positions = jnp.arange(length, dtype=jnp.int32)[None]
    findings.equal("mask", _mask(prefix_blocks(positions, jnp.full(1, prefix, jnp.int32))), case["mask"])
    if trace.tau:
        findings.close("tau", np.swapaxes(trace.tau, 1, 2), case["tau"])
    if trace.routes:
        findings.close("router_logits", [route.logits for route in trace.routes], case["router_logits"])
        findings.equal("router_topk_ids", [route.experts for route in trace.routes], case["router_topk_ids"])
        findings.close("router_topk_weights", [route.weights for route in trace.routes], case["router_topk_weights"])


def check_float8_prefill(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """The prefill case with the experts of the float8 checkpoint: kept as they are, and dequantised."""
    before = bench.golden.case("prefill")
    prompt = plain_prompt(before["prompt"])
    for keep in (True, False):
        float8 = bench.float8(keep)
        trace = float8.trace(prompt, float8.image(before))
        findings.close("hidden_last", trace.hidden[-1][-1], case["hidden_last"])
        findings.close("logits", trace.logits[-len(prompt.ids) :], case["logits"])


def _mask(blocks) -> np.ndarray:
    positions = jnp.arange(blocks.shape[1], dtype=jnp.int32)[None]
    return np.asarray(block_mask(positions, positions, blocks, blocks))[0]


def check_decode(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """Plain greedy ids behind the prefill case: nothing suppressed, every id embedded through the table."""
    before = bench.golden.case(case.facts["continues"])
    ids, image = case["tokens"], bench.image(before)
    free = bench.generate(bench.oracle, before["prompt"], image, "free", len(ids))
    findings.equal("tokens", [token.id for token in free.tokens], ids)
    readouts = bench.oracle.replay(plain_prompt(before["prompt"]), image, tokens(ids, (), -1, -1))
    findings.close("logits", [r.logits for r in readouts[:-1]], case["logits"])
    findings.close("hidden", [r.hidden for r in readouts[1:]], case["hidden"])


def check_text_only(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    prompt = case["prompt"]
    findings.equal("BOS", prompt[0], bench.tokenizer.bos_id)
    trace = bench.trace(plain_prompt(prompt[1:]), None)
    findings.close("hidden", trace.hidden[-1], case["hidden"])
    findings.close("logits", trace.logits[-1], case["logits"])
    expected = [i for i in case["tokens"].tolist() if i >= 0]
    generation = bench.generate(bench.oracle, prompt[1:], None, "text", max(1, len(expected)))
    findings.equal("tokens", [token.id for token in generation.content], expected)


def check_spatial_refs(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    ids, config = case["prompt"].tolist(), bench.tokenizer
    template = config.templates["query"]
    opener = template.get("answer_prefix", template["suffix"])
    last = max(i for i, token in enumerate(ids) if token in (config.coord_id, config.size_id))
    question = ids[last + 1 : len(ids) - len(opener)]
    prompt = query_prompt(config, lambda _: question, "recorded as ids", spatial_refs=case.facts["refs"])
    findings.equal("prompt", prompt.ids, ids)
    arrays = prompt_inputs(bench.config, prompt, has_image=False)
    embeds = inputs.embed(bench.params, *(jnp.asarray(a)[None] for a in arrays))
    # Position 0 is BOS, which the recorded prompt leaves out.
    findings.close("embeds", np.asarray(embeds, np.float32)[0, 1:], case["embeds"])
    trace = bench.trace(prompt, bench.image(case))
    findings.close("hidden", trace.hidden[-1][-len(ids) :], case["hidden"])
    findings.close("logits", trace.logits[-1], case["logits"])
