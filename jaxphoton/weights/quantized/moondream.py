"""Moondream 2's own form of 4 bits: `X.weight.packed`, `X.weight.scale`, `X.weight.zero_point`.

The numbers of a matrix lie in rows of one group each; the first half of the rows is in the high halves of the bytes,
the second half in the low ones. Zero points are no whole numbers. The shape is not stored: a bias tells it.
"""

from __future__ import annotations

import numpy as np

from jaxphoton.messages import quoted, short
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError
from jaxphoton.weights.quantized.view import INT4, Made, View, as_stored, signed

PACKED = ".weight.packed"
_PARTS = (PACKED, ".weight.scale", ".weight.zero_point")


def opened(checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint as a plain one; None where it is not in this form.

    Raises:
      WeightsError: a part of a matrix is missing, or its shape cannot be.
    """
    modules = [name.removesuffix(PACKED) for name in checkpoint if name.endswith(PACKED)]
    if not modules:
        return None
    names, made, used = set(checkpoint), dict[str, Made](), set[str]()
    for module in modules:
        parts = [f"{module}{part}" for part in _PARTS]
        absent = [name for name in (*parts, f"{module}.bias") if name not in names]
        if absent:
            raise WeightsError(f"{short(module)} is in 4 bits, but {short(absent[0])} is missing")
        made |= _matrix(checkpoint, module, parts)
        used |= set(parts)
    return View(checkpoint, made, used)


def _matrix(checkpoint: Checkpoint, module: str, parts: list[str]) -> dict[str, Made]:
    packed, scale, zero = (checkpoint.entry(name) for name in parts)
    rows = checkpoint.entry(f"{module}.bias").size
    halves, group = packed.shape if len(packed.shape) == 2 else (0, 0)
    columns = 2 * halves * group // max(rows, 1)
    fits = packed.dtype == np.uint8 and rows and group and columns % group == 0 and rows * columns == 2 * packed.size
    if not fits or not scale.size == zero.size == 2 * halves:
        shapes = ", ".join(quoted(list(entry.shape)) for entry in (packed, scale, zero))
        raise WeightsError(f"{short(module)} is in 4 bits, but {shapes} are no matrix of {rows} rows")

    def numbers() -> np.ndarray:
        whole = checkpoint.read(parts[0])
        return signed(np.concatenate([whole >> 4, whole & 15])).reshape(rows, columns)

    def shifted() -> np.ndarray:
        return checkpoint.read(parts[2]).astype(np.float32).reshape(factors) - np.float32(8)

    factors = (rows, columns // group)
    return {
        f"{module}.weight": Made(INT4, (rows, columns), numbers),
        f"{module}.scale": as_stored(checkpoint, parts[1], factors),
        f"{module}.zero": Made(np.dtype(np.float32), factors, shifted),
    }
