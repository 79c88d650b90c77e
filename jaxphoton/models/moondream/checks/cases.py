"""One function a recorded case, check(bench, case, findings); `jaxphoton.verify` finds them here."""

from __future__ import annotations

from jaxphoton.models.moondream.checks import adapters, few_bits, generation, region, text, vision
from jaxphoton.models.moondream.checks.bench import MoondreamBench as Bench

__all__ = ["Bench", "CHECKS", "GENERATED"]

# Pattern of case names -> its check.
CHECKS = (
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
    (r"detect", few_bits.check_detect),
    (r"dequantised_rows", few_bits.check_rows),
    (r"dequantised", few_bits.check_sums),
    (r"bf16_dequant", few_bits.check_rounded),
    (r"adapters\.prefill", adapters.check_positions),
    (r"adapters\..+", adapters.check_adapter),
)
GENERATED = r"caption|query|reasoning|detect|(detect|point)_(upstream|photon)"
