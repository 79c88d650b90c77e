"""What was measured on kinds of GPUs: data in `configs/gpus`, which `scripts/gpu_check.py` makes there."""

from __future__ import annotations

import json
import re
from importlib import resources

from jaxphoton.config.engine import step_parts
from jaxphoton.config.fields import require

NOT_MEASURED = "not measured"


def step_form(kind: str, rows: int) -> str:
    """The form (as in `EngineConfig.step_form`) of the fastest step of so many rows; "xla" where none was measured.

    `kind` is jax's name of the device. Between the numbers of rows that were measured the next larger one counts.
    """
    file = resources.files("jaxphoton").joinpath("configs", "gpus", f"{file_name(kind)}.json")
    if not file.is_file():
        return "xla"
    forms = read_forms(json.loads(file.read_text("utf-8")))
    return next((form for count, form in sorted(forms.items()) if count >= rows), "xla")


def read_forms(data: dict) -> dict[int, str]:
    """Rows -> form of one file; empty where nothing was measured.

    Raises:
      ConfigError: a form that there is not.
    """
    forms = data["step_forms"]
    if forms == NOT_MEASURED:
        return {}
    for form in forms.values():
        require(step_parts(form) is not None, f"{data['device_kind']}: no step_form {form!r}")
    return {int(rows): form for rows, form in forms.items()}


def file_name(kind: str) -> str:
    """Of a kind of GPU, without its suffix: "NVIDIA H200" is nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
