"""One function a recorded case, check(bench, case, findings); `jaxphoton.verify` finds them here."""

from __future__ import annotations

from jaxphoton.models.llama.checks import text as llama
from jaxphoton.models.smolvlm.checks import text, vision
from jaxphoton.models.smolvlm.checks.bench import SmolVLMBench as Bench

__all__ = ["Bench", "CHECKS", "GENERATED"]

# Pattern of case names -> its check.
CHECKS = (
    (r"frames", vision.check_geometry),
    (r"real_config_tiling", vision.check_tilings),
    (r"vision", vision.check_positions),
    (r"image\d+_nosplit", vision.check_image),
    (r"image\d+", text.check_image),
    (r"prefill", text.check_prefill),
    (r"decode", llama.check_decode),
    (r"text_only", text.check_text_only),
    (r"two_turn|stop", text.check_text),
    (r"nosplit", text.check_unsplit),
    (r"text_first", text.check_prompt),
    (r"rope", llama.check_rope),
)
GENERATED = r"two_turn|stop|nosplit"
