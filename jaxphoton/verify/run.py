"""Runs golden models case by case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from jax.typing import DTypeLike

from jaxphoton.verify.bench import Bench
from jaxphoton.verify.checks import generation, region, text, vision
from jaxphoton.verify.golden import Case, GoldenModel
from jaxphoton.verify.report import CaseReport, Findings, judge
from jaxphoton.weights.load import Placing, load_model

Check = Callable[[Bench, Case, Findings], None]

CHECKS: tuple[tuple[str, Check], ...] = (
    (r"crops\.image\d+", vision.check_crops),
    (r"image\d+", vision.check_image),
    (r"real_config_tiling", vision.check_tiling),
    (r"block_mask", text.check_block_mask),
    (r"prefill", text.check_prefill),
    (r"fp8_prefill", text.check_float8_prefill),
    (r"decode", text.check_decode),
    (r"text_only", text.check_text_only),
    (r"spatial_refs", text.check_spatial_refs),
    (r"region", region.check_region),
    (r"(detect|point)_(upstream|photon)", region.check_objects),
    (r"caption|query", generation.check_text),
    (r"reasoning", generation.check_reasoning),
    (r"reasoning_photon_layout", generation.check_photon_layout),
    (r"top_p", generation.check_top_p),
)


def run_model(
    golden: GoldenModel, dtype: DTypeLike, placing: Placing = None, judged: bool = True
) -> Iterator[CaseReport]:
    """Yields one report a case. An error inside a check fails that case alone.

    Raises:
      WeightsError, ConfigError: the model itself cannot be loaded.
    """
    family, params = load_model(golden.weights, dtype, placing)
    bench = Bench(golden, params, family.config)
    for name in golden.case_names():
        yield run_case(bench, name, judged)


def run_case(bench: Bench, name: str, judged: bool = True) -> CaseReport:
    findings, case = Findings(), bench.golden.case(name)
    check = next((check for pattern, check in CHECKS if re.fullmatch(pattern, name)), None)
    if check is None:
        findings.faults.append("unknown case: this build has no check for it")
        return judge(name, findings, judged=True)
    try:
        check(bench, case, findings)
    except Exception as error:  # a broken case must not hide the others
        findings.faults.append(f"{type(error).__name__}: {error}")
    if case.unread:
        findings.faults.append(f"not checked: {', '.join(case.unread)}")
    return judge(name, findings, judged)


def packaged_golden() -> tuple[Path, Path]:
    """The golden directory of the shipped model, and the model's own folder."""
    assets = Path(__file__).parents[1] / "assets" / "shapes"
    return assets / "golden", assets
