"""Whether what runs here is right: recorded outputs, and the engine against the oracle."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scripts.gpu.kernels import backend_here


def verify(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Golden data in float32 on this device; the packaged set if none is given."""
    from jaxphoton.verify.golden import open_golden
    from jaxphoton.verify.run import packaged_golden, run_model

    directory, weights = (args.goldens, None) if args.goldens else packaged_golden()
    cases, failed, worst = 0, [], 0.0
    for model in open_golden(directory, weights):
        if "md3" in model.name:
            continue
        for report in run_model(model, jnp.float32):
            cases += 1
            worst = max(worst, report.max_error)
            failed += [] if report.passed else [f"{model.name} {report.name}: {report.max_error:.2e} {report.faults}"]
            yield {"cases": cases, "failed": failed, "worst_error": worst}


def equality(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A tiny random model of head dim 64 in float32 through the engine, token for token as the oracle has it.

    The requests and the comparison are those of the test suite.
    """
    from jaxphoton.engine.compiled import Programs
    from jaxphoton.models.moondream.family import MoondreamFamily
    from jaxphoton.oracle.oracle import Oracle
    from tests.engine import tiny
    from tests.engine.comparison import Comparison

    c = tiny.CONFIG
    config = dataclasses.replace(
        c,
        vision=dataclasses.replace(c.vision, proj_out_dim=128),
        text=dataclasses.replace(c.text, dim=128, n_heads=2, n_kv_heads=1),
        region=dataclasses.replace(c.region, dim=128),
    )
    params = parameters(config)
    comparison = Comparison(Oracle(params, MoondreamFamily(config)))
    table, failed = [], list[str]()
    backends = ("reference", backend_here())
    for backend in backends:
        engine = dataclasses.replace(tiny.ENGINE, kernels=backend, **FEW_PROGRAMS)
        try:
            programs = Programs(params, MoondreamFamily(config), engine)
        except Exception as error:
            failed.append(f"{backend}: {type(error).__name__}: {error}"[:500])
            yield {"failed": failed}
            continue
        for schedule in ("depth 2", "depth 1", "one by one"):
            before, ties = comparison.compared, len(comparison.near_ties)
            for fault in run(programs, comparison, schedule):
                failed.append(f"{backend}, {schedule}: {fault}")
            line = {"kernels": backend, "schedule": schedule, "requests": comparison.compared - before}
            table.append({**line, "near_ties": len(comparison.near_ties) - ties})
            yield {"engine against oracle": table, "failed": failed}


def parameters(config: Any) -> Any:
    """Normal numbers: answers differ, and depend on everything that came before."""
    from jaxphoton.models.moondream.params import abstract

    leaves, tree = jax.tree.flatten(abstract(config, "float32"))
    random = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [jnp.asarray(random.normal(0, 0.2, s.shape), s.dtype) for s in leaves])


def run(programs: Any, comparison: Any, schedule: str) -> Iterator[str]:
    """Submits all requests and compares each; yields what is wrong."""
    from jaxphoton.engine.engine import Engine
    from tests.engine import tiny

    requests = [
        tiny.request(grammar, prompt, picture, max_tokens=12, temperature=temperature, top_p=top_p, seed=seed)
        for seed, (grammar, prompt, picture, temperature, top_p) in enumerate(_KINDS)
    ]
    with Engine(tiny.with_engine(programs, depth=1 if schedule == "depth 1" else 2)) as engine:
        submissions = []
        for request in requests:
            submissions.append(engine.submit(request))
            if schedule == "one by one":
                submissions[-1].future.result()
        for request, submission in zip(requests, submissions, strict=True):
            try:
                generation = submission.future.result()
                comparison.compare(request, list(generation.tokens), generation.finish_reason)
            except Exception as error:
                yield f"{request.grammar}: {type(error).__name__}: {error}"[:500]


FEW_PROGRAMS: Any = {"prefill_lengths": (16,), "vision": ((3, 9),), "host_masks": False}
# Grammar, prompt ids, picture, temperature, top-p.
_KINDS = (
    ("text", 5, None, 0.0, 1.0),
    ("text", 20, None, 0.7, 0.9),
    ("text", 3, 0, 0.0, 1.0),
    ("text", 7, 1, 1.0, 0.8),
    ("point", 4, 0, 0.0, 1.0),
    ("point", 6, 2, 0.7, 1.0),
    ("detect", 4, 1, 0.0, 1.0),
    ("detect", 5, 2, 1.0, 0.9),
    ("text", 31, 2, 0.7, 1.0),
)
