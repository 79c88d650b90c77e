"""One function a recorded case, check(bench, case, findings); `jaxphoton.verify` finds them here."""

from __future__ import annotations

from jaxphoton.models.joycaption.checks import text, vision
from jaxphoton.models.joycaption.checks.bench import JoyCaptionBench as Bench
from jaxphoton.models.llama.checks import text as llama

__all__ = ["Bench", "CHECKS", "GENERATED"]

# Pattern of case names -> its check.
CHECKS = (
    (r"image", vision.check_filters),
    (r"image\d+", vision.check_image),
    (r"prefill", text.check_prefill),
    (r"decode", llama.check_decode),
    (r"text_only", llama.check_text_only),
    (r"two_turn|no_system|stop", text.check_text),
    (r"rope", llama.check_rope),
    (r"rope_real", llama.check_real_rope),
    (r"sampling", llama.check_sampling),
)
GENERATED = r"two_turn|no_system|stop"
