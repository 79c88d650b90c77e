"""Our own form of adapters: one safetensors file, float32, `MODULE.a` and `MODULE.b` under canonical names, scaled."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from jaxphoton.files import reason
from jaxphoton.messages import escaped
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.naming import WeightsError
from jaxphoton.models.protocol import Family
from jaxphoton.models.tensors import AdapterNames
from jaxphoton.weights.adapters.pairs import Faults, Stored, check_modules, misfit, paired
from jaxphoton.weights.safetensors import TensorFile

FORMAT = "jaxphoton-adapter"


def stored(file: TensorFile, names: AdapterNames) -> dict[str, Stored]:
    """The pairs of a file of this form.

    Raises:
      WeightsError: other tensors than those of pairs of this model's modules.
    """
    faults, found = Faults(), {}
    for name in file.entries:
        module, _, matrix = name.rpartition(".")
        if matrix in ("a", "b"):
            found[module, matrix] = name
        else:
            faults.add("unknown tensors", name)
    pairs = paired(found, faults)
    check_modules(list(pairs), names.shapes, faults)
    faults.raise_any()
    return pairs


def save_adapter(path: str | Path, adapter: Adapter, family: Family) -> None:
    """Writes an adapter of a family's model as one `.safetensors` file, in whole or not at all.

    Raises:
      WeightsError: pairs that do not fit the model, or the file cannot be written.
    """
    from safetensors.numpy import save

    path, names, faults = Path(path), family.tensors.adapters, Faults()
    if path.suffix != ".safetensors":
        raise WeightsError(f"{escaped(path)}: the name of the file must end in .safetensors")
    check_modules(list(adapter.pairs), names.shapes, faults)
    for module, pair in adapter.pairs.items():
        if module in names.shapes and (fault := misfit(pair.a.shape, pair.b.shape, names.shapes[module])):
            faults.add(fault, module)
    faults.raise_any()
    tensors = {}
    for module, pair in adapter.pairs.items():
        # The writer stores memory as it lies, whatever the strides.
        tensors |= {f"{module}.a": np.ascontiguousarray(pair.a, np.float32)}
        tensors |= {f"{module}.b": np.ascontiguousarray(pair.b, np.float32)}
    _write(path, save(tensors, {"format": FORMAT, "name": adapter.name}))


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise WeightsError(f"{escaped(path)}: cannot be written: {reason(error)}") from error
