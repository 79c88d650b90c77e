"""Forms that a family has of its own: every tensor is one matrix of a pair, without a scale."""

from __future__ import annotations

from jaxphoton.messages import short
from jaxphoton.models.tensors import AdapterNames
from jaxphoton.weights.adapters.pairs import Faults, Stored, check_modules, paired
from jaxphoton.weights.mapped import MappedFile


def stored(file: MappedFile, names: AdapterNames) -> dict[str, Stored]:
    """The pairs of a file, in which a tensor may be there under two names.

    Raises:
      WeightsError: tensors that are not known, or belong to modules that are not adapted, by name.
    """
    faults, found = Faults(), {}
    for name in file.entries:
        key = names.pair(name)
        if key is None:
            peft = ".lora_A." in name or ".lora_B." in name
            faults.add("tensors of PEFT, without their adapter_config.json" if peft else "unknown tensors", name)
        elif key not in found:
            found[key] = name
        elif not _same(file, found[key], name):
            faults.add(f"of other numbers than {short(found[key])}, which is the same matrix", name)
    pairs = paired(found, faults)
    check_modules(list(pairs), names.shapes, faults)
    faults.raise_any()
    return pairs


def _same(file: MappedFile, one: str, two: str) -> bool:
    a, b = file.read(one), file.read(two)
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
