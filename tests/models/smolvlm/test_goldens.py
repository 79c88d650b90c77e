"""Every recorded case of the original, read in PyTorch, and that each part of the model is judged by some of them."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import pytest

from jaxphoton.models.smolvlm.checks import cases
from jaxphoton.models.smolvlm.checks.cases import Bench
from jaxphoton.models.smolvlm.family import SmolVLMFamily
from jaxphoton.verify.golden import open_golden
from jaxphoton.verify.run import cases_of, run_case

# All that is said of a picture is compiled for it; texts are asked of the engine in test_model.
QUICK = {"real_config_tiling", "frames", "image1", "rope", "text_first", "vision"}


@pytest.fixture(scope="module")
def golden(goldens):
    return next(model for model in open_golden(goldens) if model.name == "smolvlm2-tiny")


@pytest.fixture(scope="module")
def bench(golden, params, config):
    return Bench(golden, params, SmolVLMFamily(config))


def failed(bench, names) -> dict[str, str]:
    reports = {name: run_case(bench, name) for name in names}
    return {name: report.line() for name, report in reports.items() if not report.passed}


@pytest.mark.smoke
def test_quick_cases_pass(bench):
    assert set(cases_of(bench.golden, cases)) >= QUICK
    assert not failed(bench, QUICK)


@pytest.mark.slow
def test_every_case_passes(bench):
    names = cases_of(bench.golden, cases)
    assert len(names) == 15 and not failed(bench, names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "free"),
    [
        ("vision.post_ln", {"text_only", "rope", "vision", "text_first", "real_config_tiling", "frames"}),
        (
            "text.post_norm",
            {"image0_nosplit", "image1", "rope", "vision", "text_first", "real_config_tiling", "frames"},
        ),
    ],
)
def test_a_small_error_fails_the_cases_that_it_reaches(bench, part, free):
    field, _, leaf = part.partition(".")
    held = getattr(bench.params, field)
    bent = dataclasses.replace(held, **{leaf: getattr(held, leaf) + jnp.float32(0.05)})
    other = Bench(bench.golden, dataclasses.replace(bench.params, **{field: bent}), bench.family)
    names = set(cases_of(bench.golden, cases))
    assert set(failed(other, names)) == names - free


def test_frames_and_names_that_differ_fail(bench, monkeypatch):
    pictures = dataclasses.replace(bench.pictures, longest_edge=185)
    monkeypatch.setattr(bench.family, "pictures", pictures)
    assert "first resize" in failed(bench, ["frames"])["frames"]
    config = dataclasses.replace(bench.config, tokens=dataclasses.replace(bench.config.tokens, global_image=1))
    other = Bench(bench.golden, bench.params, SmolVLMFamily(config))
    assert "prompt" in failed(other, ["text_first"])["text_first"]
