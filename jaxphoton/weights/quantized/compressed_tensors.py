"""The forms of compressed-tensors: numbers packed into 32 bits (4 or 8 each), or plain int8 or float8.

`X.weight_packed`, the lowest bits first, or `X.weight`; `X.weight_scale` a tensor, a row or a group;
`X.weight_zero_point`, packed as the numbers are, but down the rows; `X.weight_shape`. Activations are not quantized.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from jaxphoton.messages import quoted, short
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError
from jaxphoton.weights.quantized.view import INT4, Made, View, as_stored, by_row

SCALE = ".weight_scale"
_PARTS = ("packed", "scale", "zero_point", "shape")
_BF16 = np.dtype(ml_dtypes.bfloat16)


def opened(checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint as a plain one; None where it is not in this form.

    Raises:
      WeightsError: the parts of a matrix do not fit each other.
    """
    modules = [name.removesuffix(SCALE) for name in checkpoint if name.endswith(SCALE)]
    if not modules:
        return None
    names, made, used = set(checkpoint), dict[str, Made](), set[str]()
    for module in modules:
        found = {part: name for part in _PARTS if (name := f"{module}.weight_{part}") in names}
        if ("packed" in found) == (f"{module}.weight" in names):
            which = "and both .weight and" if "packed" in found else "but neither .weight nor"
            raise WeightsError(f"{short(module)} has a scale, {which} .weight_packed")
        made |= _matrix(checkpoint, module, found)
        used |= set(found.values())
    return View(checkpoint, made, used)


def _matrix(checkpoint: Checkpoint, module: str, found: dict[str, str]) -> dict[str, Made]:
    if "packed" in found:
        weight, bits = _packed(checkpoint, module, found)
    else:
        weight, bits = as_stored(checkpoint, f"{module}.weight"), 0
    scale = as_stored(checkpoint, found["scale"])
    made = {f"{module}.weight": weight, f"{module}.scale": by_row(scale, weight.shape)}
    if "zero_point" in found:
        rows = 1 if math.prod(scale.shape) == 1 else weight.shape[0]
        made[f"{module}.zero"] = by_row(_zero(checkpoint, found["zero_point"], rows, bits), weight.shape)
    return made


def _packed(checkpoint: Checkpoint, module: str, found: dict[str, str]) -> tuple[Made, int]:
    """The matrix, and how many bits a number has."""
    name = found["packed"]
    entry = checkpoint.entry(name)
    shape = checkpoint.entry(found["shape"]) if "shape" in found else None
    if shape is None or shape.shape != (2,) or shape.dtype.kind != "i":
        raise WeightsError(f"{short(module)} is packed, but has no weight_shape of two whole numbers")
    rows, columns = (int(n) for n in checkpoint.read(found["shape"]))
    fitting = [bits for bits in (4, 8) if entry.shape == (rows, -(-columns * bits // 32))]
    if entry.dtype != np.int32 or len(fitting) != 1 or min(rows, columns) < 1:
        fault = f"{entry.dtype.name} {quoted(list(entry.shape))} for a matrix {quoted([rows, columns])}"
        raise WeightsError(f"{short(name)} is not packed in 4 or 8 bits: {fault}")
    bits = fitting[0]
    return Made(_dtype(bits), (rows, columns), lambda: _unpacked(checkpoint.read(name), bits, columns)), bits


def _unpacked(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """int32 [..., n] -> the first `count` signed numbers [..., count] that were stored with half their range added."""
    data = np.ascontiguousarray(words).view(np.uint8)
    if bits == 4:
        data = np.stack([data & 15, data >> 4], axis=-1).reshape(*data.shape[:-1], -1)
        return (data[..., :count].view(np.int8) - np.int8(8)).astype(INT4)
    return (data[..., :count] ^ 128).view(np.int8)


def _dtype(bits: int) -> np.dtype:
    return INT4 if bits == 4 else np.dtype(np.int8)


def _zero(checkpoint: Checkpoint, name: str, rows: int, bits: int) -> Made:
    """Zero points are whole numbers, which bfloat16 holds."""
    entry = checkpoint.entry(name)
    if entry.dtype == np.int8:
        return Made(_BF16, entry.shape, lambda: checkpoint.read(name).astype(_BF16))
    if entry.dtype != np.int32 or not bits or len(entry.shape) != 2 or entry.shape[0] != -(-rows * bits // 32):
        raise WeightsError(
            f"{short(name)} is no zero point of {rows} rows: {entry.dtype.name} {quoted(list(entry.shape))}"
        )

    def unpacked() -> np.ndarray:
        return _unpacked(checkpoint.read(name).T, bits, rows).T.astype(_BF16)

    return Made(_BF16, (rows, entry.shape[1]), unpacked)
