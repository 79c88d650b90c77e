"""What follows from weights in Moondream 2's own form of 4 bits: recorded in parts, beside rows of the matrices."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.spec import by_path
from jaxphoton.layers.weight import Dense
from jaxphoton.models.moondream.checks.bench import MoondreamBench
from jaxphoton.models.moondream.checks.region import bins_of, objects_of
from jaxphoton.verify.bench import plain_prompt
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings
from jaxphoton.weights.load import load_model


def check_detect(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    bins, most, image = case["bins"], case.facts["max_objects"], bench.image(case)
    generation = bench.generate(bench.oracle, case["prompt"], image, "detect", 3 * most + 1, most)
    findings.equal("bins", bins_of(generation, bins.shape), bins)
    findings.close("objects", objects_of("detect", "upstream", bench, generation), case["objects"])
    readouts = bench.oracle.replay(plain_prompt(case["prompt"]), image, generation.content[: 3 * most])
    pair = [bench.tokenizer.eos_id, bench.tokenizer.coord_id]
    findings.close("decision_logits", [r.logits[pair] for r in readouts[::3]], case["decision_logits"])


def check_rows(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """Six rows of each matrix."""
    matrices = _matrices(bench)
    for name in (unread.partition(".")[2] for unread in case.unread):
        half = len(matrices[name]) // 2
        findings.close(name, matrices[name][[0, 1, half - 1, half, -2, -1]], case[name])


def check_sums(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """Sums over each matrix, of which the first digits are recorded."""
    matrices = _matrices(bench)
    for name, facts in case.facts["sums"].items():
        matrix = matrices[name].astype(np.float64)
        findings.equal(f"shape of {name}", matrix.shape, facts["shape"])
        for kind, found in (("sum", matrix.sum()), ("sum_of_squares", np.square(matrix).sum())):
            findings.close(f"{kind} of {name}", found / facts[kind], 1.0)


def check_rounded(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """The weights as the original makes them in bfloat16: a number less its zero point is rounded, and the product."""
    rounded = jax.tree.map(_rounded, bench.params, is_leaf=lambda node: isinstance(node, Grouped))
    other = type(bench)(bench.golden, rounded, bench.family)
    prefill, caption = bench.golden.case("prefill"), bench.golden.case("caption")
    prompt = plain_prompt(prefill["prompt"])
    logits = other.trace(prompt, other.image(prefill)).logits[-len(prompt.ids) :]
    findings.close("logits", logits, case["logits"])
    ids = case["caption_tokens"]
    generation = other.generate(other.oracle, caption["prompt"], other.image(caption), "text", len(ids))
    findings.equal("caption_tokens", [token.id for token in generation.content][: len(ids)], ids)


def _rounded(node: Any) -> Any:
    if not isinstance(node, Grouped) or node.zero is None:
        return node
    ones = dataclasses.replace(node, scale=jnp.ones_like(node.scale))
    matrix = ones.values(jnp.float32).astype(jnp.bfloat16) * node.scale.astype(jnp.bfloat16)[..., None]
    return Dense(matrix.astype(jnp.float32).reshape(*matrix.shape[:-2], -1))


def _matrices(bench: MoondreamBench) -> dict[str, np.ndarray]:
    """By the names of their tensors, brought from few bits to the model's dtype."""
    family, params = load_model(bench.golden.weights, bench.params.text.wte.dtype, quantize="none")
    leaves = by_path(params)
    places = family.tensors.placements(family.tensors.stored_form(leaves))
    return {place.name: np.asarray(leaves[place.leaf], np.float32)[place.index] for place in places}
