"""Texts: caption, query, reasoning; and top-p."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from jaxphoton.models.adapters import Adapter
from jaxphoton.models.moondream.checks.bench import MoondreamBench, tokens
from jaxphoton.models.moondream.readouts import coordinate_values
from jaxphoton.models.moondream.skills.query import Query
from jaxphoton.oracle import sampling
from jaxphoton.oracle.oracle import Picture
from jaxphoton.requests.tokens import Generation, Token
from jaxphoton.verify.bench import plain_prompt
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings


def check_text(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """caption and query."""
    compare_text(bench, case["prompt"], bench.image(case), case["tokens"], case["logits"], findings)


def compare_text(
    bench: MoondreamBench,
    prompt: Iterable[int],
    image: Picture | None,
    ids: np.ndarray,
    expected: np.ndarray,
    findings: Findings,
    adapter: Adapter | None = None,
) -> None:
    """Row i of the expected logits selects token i; one more row where generation stopped."""
    generation = bench.generate(bench.oracle, prompt, image, "text", len(expected), adapter=adapter)
    findings.equal("tokens", [token.id for token in generation.content][: len(ids)], ids)
    readouts = bench.oracle.replay(plain_prompt(prompt), image, tokens(ids, (), -1, -1), adapter)
    findings.close("logits", [r.logits for r in readouts[: len(expected)]], expected)
    if len(expected) > len(ids):
        suppressed = bench.grammars["text"].states["answer"].suppress
        stops = _choice(expected[-1], suppressed) == bench.tokenizer.eos_id
        ended = len(generation.tokens) == len(ids) + 1 and generation.finish_reason == "stop"
        findings.equal("stops by itself", ended, stops)


def check_reasoning(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """Reasoning with coordinates up to the answer id, then the answer."""
    image, config = bench.image(case), bench.tokenizer
    thought, answer = case["tokens"].tolist(), case["answer_tokens"].tolist()
    findings.equal("answer_prompt", case["answer_prompt"], [config.answer_id])
    ids = [*thought, config.answer_id, *answer]
    generation = bench.generate(bench.oracle, case["prompt"], image, "reasoning", len(ids) + 1)
    findings.equal("tokens", [token.id for token in generation.content][: len(ids)], ids)
    bins = [token.bins[0] for token in generation.content if token.bins]
    findings.equal("coord_bins", bins, case["coord_bins"])
    _check_grounding(bench, case, findings, generation)
    replay = _with_coordinates(bench, ids, case["coord_bins"])
    readouts = bench.oracle.replay(plain_prompt(case["prompt"]), image, replay)
    findings.close("logits", [r.logits for r in readouts[: len(thought) + 1]], case["logits"])
    expected = case["answer_logits"]
    findings.close("answer_logits", [r.logits for r in readouts[len(thought) + 1 :]][: len(expected)], expected)


def _check_grounding(bench: MoondreamBench, case: Case, findings: Findings, generation: Generation) -> None:
    skill = Query(plain_prompt(()), bench.tokenizer, reasoning=True)
    # The recorded offsets refer to a stub text that spells out ids.
    grounding = skill.parse(generation, lambda ids: "".join(f"<{i}>" for i in ids))["reasoning"]["grounding"]
    expected = case.facts.get("grounding", [])
    findings.equal("grounding offsets", [_offsets(g) for g in grounding], [_offsets(g) for g in expected])
    points = [point for g in grounding for point in g["points"]]
    findings.close("grounding points", points, [point for g in expected for point in g["points"]])


def _offsets(entry: dict) -> list[int]:
    return [entry["start_idx"], entry["end_idx"], len(entry["points"])]


def check_photon_layout(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """The answer opened by two answer ids."""
    context, reasoning = case["context"].tolist(), bench.golden.case("reasoning")
    length = len(reasoning["prompt"])
    replay = _with_coordinates(bench, context[length:], reasoning["coord_bins"])
    readouts = bench.oracle.replay(plain_prompt(context[:length]), bench.image(case), replay)
    findings.close("logits", readouts[-1].logits, case["logits"])


def check_top_p(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    rows = case["probs"]
    for name in (n.partition(".")[2] for n in case.unread):
        top_p = float(name.removeprefix("filtered_"))
        kept = np.array([np.where(sampling.top_p_keep(row, top_p), row, 0.0) for row in rows.astype(np.float64)])
        findings.close(name, kept / kept.sum(axis=1, keepdims=True), case[name])


def _with_coordinates(bench: MoondreamBench, ids: Sequence[int], bins: np.ndarray) -> list[Token]:
    values = [(v,) for v in coordinate_values(bench.config.region)[bins].tolist()]
    return tokens(ids, values, bench.tokenizer.coord_id, -1)


def _choice(logits: np.ndarray, suppressed: frozenset[int]) -> int:
    masked = logits.copy()
    masked[list(suppressed)] = -np.inf
    return int(np.argmax(masked))
