"""Region heads, and the loops of detect and point in both conventions."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxphoton.models.moondream import readouts, region
from jaxphoton.models.moondream.checks.bench import MoondreamBench, tokens
from jaxphoton.models.moondream.skills.detect import Detect
from jaxphoton.models.moondream.skills.point import Point
from jaxphoton.oracle.oracle import Prediction
from jaxphoton.requests.tokens import Generation
from jaxphoton.verify.bench import plain_prompt
from jaxphoton.verify.golden import Case
from jaxphoton.verify.report import Findings


def check_region(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    config, params = bench.config.region, bench.params.region
    if "bins" in case:
        bins = case["bins"]
        for name, divisor in (("bin_to_coord_upstream", "bins"), ("bin_to_coord_photon", "bins-1")):
            values = readouts.coordinate_values(dataclasses.replace(config, coord_divisor=divisor))
            findings.close(name, values[bins], case[name])
        findings.close("bin_to_size", readouts.size_values(config)[bins], case["bin_to_size"])
    coordinates = jnp.asarray(case["coord_values"], jnp.float32)[:, None]
    findings.close("coord_embeds", region.encode_coordinate(params, coordinates), case["coord_embeds"])
    sizes = jnp.asarray(case["size_values"], jnp.float32)
    findings.close("size_embeds", region.encode_size(params, sizes), case["size_embeds"])
    hidden = jnp.asarray(case["hidden"], bench.params.text.wte.dtype)
    coordinate, size = region.decode(params, config, hidden)
    findings.close("coord_logits", coordinate, case["coord_logits"])
    findings.close("size_logits", size, case["size_logits"])


def check_objects(bench: MoondreamBench, case: Case, findings: Findings) -> None:
    """detect_upstream, detect_photon, point_upstream, point_photon."""
    kind, _, variant = case.name.partition("_")
    oracle = bench.photon_oracle if variant == "photon" else bench.oracle
    ids, image = case["token_ids"], bench.image(case)
    most = case.facts.get("max_objects", len(ids))
    generation = bench.generate(oracle, case["prompt"], image, kind, len(ids), most)
    findings.equal("token_ids", [token.id for token in generation.tokens], ids)
    findings.equal("bins", bins_of(generation, case["bins"].shape), case["bins"])
    findings.close("objects", objects_of(kind, variant, bench, generation), case["objects"])
    replay = tokens(ids, _split(case["values"]), bench.tokenizer.coord_id, bench.tokenizer.size_id)
    readouts = oracle.replay(plain_prompt(case["prompt"]), image, replay[:-1])
    reads = [r.hidden for r, token in zip(readouts, replay, strict=True) if token.value is not None]
    findings.close("hidden", np.array(reads).reshape(-1, bench.config.text.dim), case["hidden"])
    findings.close("values", _values(generation, case["values"].shape), case["values"])
    decisions = case["decision_logits"]
    steps = 3 if kind == "detect" else 2
    findings.close("decision_logits", _decisions(bench, readouts[::steps])[: len(decisions)], decisions)


def _split(values: np.ndarray) -> list[tuple[float, ...]]:
    """Rows (x, y) or (x, y, width, height) -> the value of every fed token in order."""
    parts: list[tuple[float, ...]] = []
    for row in values:
        parts += [(row[0],), (row[1],)] + ([tuple(row[2:])] if len(row) == 4 else [])
    return parts


def bins_of(generation: Generation, shape: tuple[int, ...]) -> np.ndarray:
    flat = [b for token in generation.content for b in token.bins or ()]
    return np.array(flat, np.int32).reshape(-1, shape[1])


def _values(generation: Generation, shape: tuple[int, ...]) -> np.ndarray:
    flat = [v for token in generation.content for v in token.value or ()]
    return np.array(flat, np.float32).reshape(-1, shape[1])


def objects_of(kind: str, variant: str, bench: MoondreamBench, generation: Generation) -> np.ndarray:
    prompt = plain_prompt(())
    skill = Detect(prompt, clamp=variant == "photon") if kind == "detect" else Point(prompt)
    result = skill.parse(generation, lambda ids: "")
    columns = 4 if kind == "detect" else 2
    return np.array([list(row.values()) for row in next(iter(result.values()))], np.float64).reshape(-1, columns)


def _decisions(bench: MoondreamBench, readouts: list[Prediction]) -> np.ndarray:
    """Logits of (stop, coordinate)."""
    pair = [bench.tokenizer.eos_id, bench.tokenizer.coord_id]
    return np.array([r.logits[pair] for r in readouts])
