"""Which form of few bits a checkpoint is in: told by the names of its tensors, and by its settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jaxphoton.messages import escaped, quoted, short
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError
from jaxphoton.weights.quantized import compressed_tensors, moondream, torchao

FORMS = (moondream, compressed_tensors, torchao)
METHODS = ("compressed-tensors", "torchao")
READ = "those read are Moondream's own 4 bits, compressed-tensors and torchao, and --quantize makes any from bfloat16"

# Ends of names of tensors that nothing else has -> whose they are.
REFUSED = {
    ".SCB": "bitsandbytes",
    ".weight.absmax": "bitsandbytes",
    ".weight.quant_map": "bitsandbytes",
    ".g_idx": "GPTQ",
    ".qzeros": "AWQ or GPTQ",
    ".qweight": "AWQ or GPTQ",
    ".weight_g_idx": "compressed-tensors in the order of activations",
    ".weight_global_scale": "nvfp4",
    ".weight_scale_2": "nvfp4",
    "_blocks": "mxfp4",
    ".weight_scale_inv": "float8 in blocks",
}


def plain(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its matrices in few bits as `X.weight`, `X.scale` and `X.zero`; itself if there are none.

    Raises:
      WeightsError: they are in a form that is not read, or damaged.
    """
    names = [name for name in checkpoint if name.endswith(tuple(REFUSED))]
    try:
        if names:
            whose = next(whose for end, whose in REFUSED.items() if names[0].endswith(end))
            raise WeightsError(f"weights of {whose} ({short(names[0])}) are not read; {READ}")
        views = (form.opened(checkpoint) for form in FORMS)
        return next((view for view in views if view is not None), checkpoint)
    except WeightsError as error:
        raise WeightsError(f"{escaped(checkpoint.path)}: {error}") from None


def check_settings(settings: Any) -> None:
    """Refuses by name what the settings of a model (its `config.json`) say of weights that are not read.

    Raises:
      WeightsError
    """
    said = settings.get("quantization_config") if isinstance(settings, dict) else None
    if not isinstance(said, dict):
        return
    method = said.get("quant_method")
    if method not in METHODS:
        raise WeightsError(f"weights of {quoted(method)} are not read; {READ}")
    kinds = {said.get("format"), *(_formats(said.get("config_groups")))}
    four = sorted(str(kind) for kind in kinds if "fp4" in str(kind))
    if four:
        raise WeightsError(f"weights of compressed-tensors' {four[0]} are not read; {READ}")
    if said.get("transform_config"):
        raise WeightsError("weights of compressed-tensors with transforms (rotated matrices) are not read")


def _formats(groups: Any) -> Iterable[Any]:
    groups = groups.values() if isinstance(groups, dict) else ()
    return [group.get("format") for group in groups if isinstance(group, dict)]
