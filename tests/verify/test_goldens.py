"""Every golden case of both families, and that the judge can say no."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from typing import cast

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxphoton.cli.main import main
from jaxphoton.models.moondream.checks.adapters import _adapter
from jaxphoton.models.moondream.checks.cases import GENERATED, Bench
from jaxphoton.models.moondream.checks.vision import check_crops
from jaxphoton.verify.golden import Case, GoldenError, open_golden
from jaxphoton.verify.report import TOLERANCE, Findings, judge
from jaxphoton.verify.run import packaged_golden, run_case, run_model
from jaxphoton.weights.checkpoint import Checkpoint


@pytest.mark.smoke
def test_every_case_of_md2_tiny_passes(md2_bench, md2_golden):
    reports = [run_case(md2_bench, name) for name in md2_golden.case_names()]
    assert len(reports) >= 22
    adapters = {"adapters.peft", "adapters.peft_patterns", "adapters.peft_rslora", "adapters.upstream"}
    assert adapters <= {report.name for report in reports}
    failed = [report.line() for report in reports if not report.passed]
    assert not failed, "\n".join(failed)


def test_every_case_of_md2_tiny_int4_passes(goldens):
    (golden,) = (model for model in open_golden(goldens) if model.name == "md2-tiny-int4")
    reports = list(run_model(golden, jnp.float32))
    assert {"dequantised_rows", "caption", "detect", "prefill", "region"} <= {report.name for report in reports}
    failed = [report.line() for report in reports if not report.passed]
    assert not failed, "\n".join(failed)


def test_every_case_of_md3_tiny_passes(md3_bench):
    names = md3_bench.golden.case_names()
    assert {"prefill", "fp8_prefill", "reasoning", "adapters.kestrel"} <= set(names) and len(names) >= 22
    failed = [report.line() for name in names if not (report := run_case(md3_bench, name)).passed]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("model", ["md2_bench", "md3_bench"])
def test_with_fast_crops_texts_boxes_and_points_are_as_recorded(model, request):
    exact = request.getfixturevalue(model)
    bench = Bench(exact.golden, exact.params, exact.family, "fast")
    names = [name for name in bench.golden.case_names() if re.fullmatch(GENERATED, name)]
    assert {"caption", "query", "detect_upstream", "point_upstream"} <= set(names)
    reports = [run_case(bench, name, True, math.inf) for name in names]
    failed = [report.line() for report in reports if not report.passed]
    assert not failed, "\n".join(failed)
    assert all(report.max_error > TOLERANCE for report in reports)  # it saw other crops
    json.dumps(reports[0].as_json(), allow_nan=False)


def test_a_router_that_differs_fails_the_prefill_case(md3_bench):
    text = md3_bench.params.text
    bias = text.router_b.at[0, int(jnp.argmin(text.router_b[0]))].add(jnp.float32(5))
    params = dataclasses.replace(md3_bench.params, text=dataclasses.replace(text, router_b=bias))
    report = run_case(Bench(md3_bench.golden, params, md3_bench.family), "prefill")
    assert any("router_topk_ids" in fault for fault in report.faults)


@pytest.mark.parametrize("name", ["peft", "upstream"])
def test_the_model_alone_fails_the_cases_of_adapters(md2_bench, monkeypatch, name):
    monkeypatch.setattr("jaxphoton.models.moondream.checks.adapters._adapter", lambda *case: None)
    report = run_case(md2_bench, f"adapters.{name}")
    assert report.max_error > 1 and any("tokens" in fault for fault in report.faults)


def test_files_of_one_adapter_must_hold_the_same(md2_bench):
    case = md2_bench.golden.case("adapters.peft")
    case.facts = {"files": ["adapters/peft/adapter_model.safetensors", "adapters/peft_rslora/adapter_config.json"]}
    _adapter(md2_bench, case, findings := Findings())
    assert findings.faults and findings.faults[0].startswith("adapter:")


def test_a_small_error_in_the_weights_fails_every_case_that_reads_them(md2_bench, md2_golden):
    text = md2_bench.params.text
    bent = dataclasses.replace(text, post_ln=text.post_ln + jnp.float32(0.01))
    bench = Bench(md2_golden, dataclasses.replace(md2_bench.params, text=bent), md2_bench.family)
    assert run_case(bench, "region").passed
    assert not run_case(bench, "caption").passed


class Arrays(dict):
    read = dict.__getitem__


@pytest.mark.parametrize("between", [(118, 98), (98, 240)])
def test_recorded_crops_may_have_either_order_of_a_resize_and_no_wrong_pixel(md2_bench, between):
    images = md2_bench.golden.images
    pixels, crops = images.read("image2.pixels"), images.read("image2.crops").copy()
    once = Image.fromarray(pixels).resize(between, Image.Resampling.LANCZOS)
    crops[0] = np.asarray(once.resize((98, 98), Image.Resampling.LANCZOS))
    for wrong in (0, 1):
        crops[0, 5, 5, 1] ^= wrong
        arrays = Arrays({"x.pixels": pixels, "x.crops": crops})
        check_crops(md2_bench, Case(cast(Checkpoint, arrays), "x", {}), findings := Findings())
        assert len(findings.faults) == wrong


def test_an_unknown_case_is_a_failure_even_when_errors_are_not_judged(md2_bench):
    report = run_case(md2_bench, "levitation", judged=False)
    assert report.passed is False
    assert "unknown case" in report.faults[0]


def test_an_array_that_no_check_reads_is_a_failure(md2_bench, monkeypatch):
    monkeypatch.setattr(Case, "unread", property(lambda self: ["block_mask.extra"]))
    assert run_case(md2_bench, "block_mask").faults == ("not checked: block_mask.extra",)


def test_a_check_that_raises_fails_its_case_and_says_why(md2_bench, monkeypatch):
    monkeypatch.setattr(Case, "__getitem__", lambda self, array: 1 / 0)
    report = run_case(md2_bench, "block_mask")
    assert not report.passed
    assert "ZeroDivisionError" in report.faults[0]


@pytest.mark.parametrize(
    ("got", "expected"),
    [([1.0, 2.0], [1.0, 2.001]), ([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([np.inf], [1.0])],
)
def test_findings_reject(got, expected):
    findings = Findings()
    findings.close("x", got, expected)
    assert not judge("case", findings, judged=True).passed


def test_reports_are_plain_json(md2_bench):
    json.loads(json.dumps(run_case(md2_bench, "top_p").as_json(), allow_nan=False))


def test_a_folder_that_is_no_golden_directory_is_named(tmp_path):
    with pytest.raises(GoldenError, match=str(tmp_path)):
        open_golden(tmp_path)


def test_models_of_other_families_are_left_out_aloud(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxphoton.verify.run.run_case", lambda bench, name, *how: judge(name, Findings(), *how))
    shipped, weights = packaged_golden()
    for name, config in (("llava", {"model_type": "llava"}), ("blip", {"model_type": "blip"})):
        (tmp_path / name).mkdir()
        for file in ("cases.json", "cases.safetensors"):
            (tmp_path / name / file).write_bytes((shipped / "shapes" / file).read_bytes())
        (tmp_path / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "images.safetensors").write_bytes((shipped / "images.safetensors").read_bytes())
    assert main(["verify", str(tmp_path)]) == 1
    assert "verify: nothing could be run: " in capsys.readouterr().err
    shutil.copytree(weights, tmp_path / "shapes", ignore=lambda folder, names: ["golden"])
    shutil.copytree(shipped / "shapes", tmp_path / "shapes", dirs_exist_ok=True)
    assert main(["verify", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "12 of 12 cases passed" in printed.out
    assert "llava left out" in printed.err and "blip left out" in printed.err
    assert main(["verify", str(tmp_path), "--model", "llava"]) == 1
    (tmp_path / "shapes" / "config.json").write_text('{"config": {"text": {"dim": -1}}}', encoding="utf-8")
    assert main(["verify", str(tmp_path)]) == 1
