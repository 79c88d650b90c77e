"""Every recorded case of the original, read in PyTorch, and that each part of the model is judged by some of them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxphoton.models.joycaption.checks.cases import CHECKS, Bench
from jaxphoton.models.joycaption.checks.vision import check_filters
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from jaxphoton.models.joycaption.pictures import JoyCaptionPictures
from jaxphoton.verify.golden import open_golden
from jaxphoton.verify.report import Findings
from jaxphoton.verify.run import cases_of, run_case


@pytest.fixture(scope="module")
def golden(goldens):
    return next(model for model in open_golden(goldens) if model.name == "joycaption-tiny")


@pytest.fixture(scope="module")
def bench(golden, params, config):
    return Bench(golden, params, JoyCaptionFamily(config))


def cases(bench) -> list[str]:
    from jaxphoton.models.joycaption.checks import cases

    return cases_of(bench.golden, cases)


@pytest.mark.smoke
def test_every_case_passes(bench):
    names = cases(bench)
    assert len(names) == 13 and len(CHECKS) == 9
    failed = [report.line() for name in names if not (report := run_case(bench, name)).passed]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize(
    ("part", "alone"),
    [
        ("vision.proj_fc1_b", {"image0", "prefill"}),
        ("text.post_norm", {"prefill", "text_only"}),
    ],
)
def test_a_small_error_fails_the_cases_that_it_reaches(bench, part, alone):
    field, _, leaf = part.partition(".")
    held = getattr(bench.params, field)
    bent = dataclasses.replace(held, **{leaf: getattr(held, leaf) + jnp.float32(0.05)})
    other = Bench(bench.golden, dataclasses.replace(bench.params, **{field: bent}), bench.family)
    other.newer = lambda: None  # its tensors are compared by themselves
    names = ("image0", "prefill", "rope", "text_only")
    assert {name for name in names if not run_case(other, name).passed} == alone


def test_newer_files_that_hold_something_else_fail(bench, monkeypatch):
    family, params = bench.newer()
    other = jax.tree.map(lambda leaf: leaf + jnp.asarray(1, leaf.dtype), params)
    monkeypatch.setattr(bench, "newer", lambda: (family, other))
    assert any("newer names" in fault for fault in run_case(bench, "prefill").faults)


def test_the_filter_is_a_setting_of_the_model(config, photos, recorded):
    photo = Image.fromarray(photos[1])
    family = JoyCaptionFamily(dataclasses.replace(config, resample="bicubic"))
    np.testing.assert_array_equal(family.pictures.prepare(photo).pixels[0], recorded["image1.resized_processor"])
    np.testing.assert_array_equal(JoyCaptionPictures(60).prepare(photo).pixels[0], recorded["image1.resized"])
    fast = family.pictures.prepare(photo, resize="fast").pixels[0].astype(int)
    away = np.abs(fast - recorded["image1.resized_processor"])
    assert 0 < np.max(away) <= 2


@pytest.mark.parametrize(("off", "passes"), [((0, 0.0), True), ((1, 0.0), False), ((0, 0.002), False)])
def test_the_difference_of_the_filters_is_judged_whatever_order_their_passes_had(off, passes):
    """On noise the orders differ by many levels: Pillow 13 takes the height of this picture first, and we the width."""
    noise = np.random.default_rng(3).integers(0, 256, (48, 15, 3)).astype(np.uint8)
    turned = Image.fromarray(noise.swapaxes(0, 1))
    author, processor = (JoyCaptionPictures(27, each).prepare(turned).pixels[0] for each in ("lanczos", "bicubic"))
    away = np.abs(author.astype(int) - processor)
    recorded = {
        "author_vs_processor_max": int(away.max()) + off[0],
        "author_vs_processor_mean": round(float(away.mean()), 3) + off[1],
    }
    golden = SimpleNamespace(images=SimpleNamespace(read=lambda name: noise))
    bench: Any = SimpleNamespace(golden=golden, family=SimpleNamespace(pictures=JoyCaptionPictures(27)))
    case: Any = SimpleNamespace(facts={"filter_difference": {"image0": recorded}})
    findings = Findings()
    check_filters(bench, case, findings)
    assert (not findings.faults) == passes
