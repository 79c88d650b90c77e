"""The form in which torchao's tensors lie in safetensors files: `X._weight_qdata`, `X._weight_scale`, perhaps
`X._weight_zero_point`. What they are is in the file's metadata: under `X.weight`, a JSON object with a `_type`."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from jaxphoton.files import FileError, parse_json
from jaxphoton.messages import listed, quoted, short
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError
from jaxphoton.weights.quantized.view import Made, View, as_stored, by_row

DATA = "._weight_qdata"
TYPES = ("Int8Tensor", "Float8Tensor", "IntxUnpackedToInt8Tensor")  # one number an element, in order
_BF16 = np.dtype(ml_dtypes.bfloat16)


def opened(checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint as a plain one; None where it is not in this form.

    Raises:
      WeightsError: a tensor is of a type that is not read, or its parts are missing.
    """
    modules = [name.removesuffix(DATA) for name in checkpoint if name.endswith(DATA)]
    if not modules:
        return None
    names, made, used = set(checkpoint), dict[str, Made](), set[str]()
    for module in modules:
        _check_type(checkpoint, module)
        data, scale, zero = (f"{module}._weight_{part}" for part in ("qdata", "scale", "zero_point"))
        if scale not in names:
            raise WeightsError(f"{short(module)} is of torchao, but {short(scale)} is missing")
        weight = as_stored(checkpoint, data)
        made |= {f"{module}.weight": weight, f"{module}.scale": by_row(as_stored(checkpoint, scale), weight.shape)}
        used |= {data, scale} | ({zero} & names)
        # That of a symmetric tensor is there, too, and all zeros.
        if zero in names and np.any(checkpoint.read(zero)):
            made[f"{module}.zero"] = by_row(_widened(checkpoint, zero), weight.shape)
    return View(checkpoint, made, used)


def _check_type(checkpoint: Checkpoint, module: str) -> None:
    text = checkpoint.metadata.get(f"{module}.weight")
    try:
        described = parse_json(text.encode()) if isinstance(text, str) else None
    except FileError as error:
        raise WeightsError(f"metadata of {short(module)}.weight: {error}") from None
    kind = described.get("_type") if isinstance(described, dict) else None
    if kind not in TYPES:
        known = listed(TYPES)
        raise WeightsError(f"{short(module)}.weight is of torchao's type {quoted(kind)}; those read are {known}")


def _widened(checkpoint: Checkpoint, name: str) -> Made:
    """Zero points of int8 are whole numbers, which bfloat16 holds; others stay what they are."""
    entry = checkpoint.entry(name)
    dtype = _BF16 if entry.dtype == np.int8 else np.dtype(np.float32)
    return Made(dtype, entry.shape, lambda: checkpoint.read(name).astype(dtype))
