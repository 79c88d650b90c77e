"""The forms of compressed-tensors: numbers packed into 32 bits (4 or 8 each), or plain int8 or float8.

`X.weight_packed`, the lowest bits first, or `X.weight`; `X.weight_scale` a tensor, a row or a group;
`X.weight_zero_point`, packed as the numbers are, but down the rows; `X.weight_shape`. Activations are not quantized.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from jaxphoton.messages import quoted, short
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError
from jaxphoton.weights.quantized.view import INT4, Made, View, as_stored

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
        if "packed" not in found and f"{module}.weight" not in names:
            raise WeightsError(f"{short(module)} has a scale, but neither .weight nor .weight_packed")
        made |= _matrix(checkpoint, module, found)
        used |= set(found.values())
    return View(checkpoint, made, used)


def _matrix(checkpoint: Checkpoint, module: str, found: dict[str, str]) -> dict[str, Made]:
    if "packed" in found:
        weight, bits = _packed(checkpoint, module, found)
    else:
        weight, bits = as_stored(checkpoint, f"{module}.weight"), 0
    made = {f"{module}.weight": weight, f"{module}.scale": _scale(checkpoint, found["scale"], weight.shape)}
    if "zero_point" in found:
        made[f"{module}.zero"] = _zero(checkpoint, module, found["zero_point"], weight.shape[0], bits)
    return made


def _packed(checkpoint: Checkpoint, module: str, found: dict[str, str]) -> tuple[Made, int]:
    """The matrix, and how many bits a number has."""
    name = found["packed"]
    entry = checkpoint.entry(name)
    if "shape" not in found or checkpoint.entry(found["shape"]).shape != (2,):
        raise WeightsError(f"{short(module)} is packed, but has no weight_shape of two numbers")
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


def _scale(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> Made:
    """Of a group or a row as it is stored; one of the whole tensor is every row's."""
    entry = checkpoint.entry(name)
    if entry.size != 1 or not shape:
        return as_stored(checkpoint, name)
    rows = (*shape[:-1], 1)
    return Made(entry.dtype, rows, lambda: np.broadcast_to(checkpoint.read(name).reshape(()), rows))


def _zero(checkpoint: Checkpoint, module: str, name: str, rows: int, bits: int) -> Made:
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
