"""From tensors of a file to the pairs of an adapter: whole, of the right shapes, in float32, scaled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from jaxphoton.messages import listed, quoted, short
from jaxphoton.models.adapters import LowRank
from jaxphoton.models.naming import WeightsError
from jaxphoton.models.tensors import AdapterNames
from jaxphoton.weights.mapped import MappedFile

ONLY_MERGED = (
    "pairs that are no part of the text decoder, which requests cannot choose (`jaxphoton convert MODEL FOLDER "
    "--merge-adapter ADAPTER` makes a model that has them)"
)
DTYPES = tuple(map(np.dtype, (np.float32, ml_dtypes.bfloat16, np.float16)))


@dataclass(frozen=True, slots=True)
class Stored:
    """A pair in a file: the names of its tensors, and the scale of their product."""

    a: str
    b: str
    scale: float = 1.0


class Faults:
    """What is wrong with a file, all of it told in one error."""

    def __init__(self):
        self._found: dict[str, list[str]] = {}

    def add(self, fault: str, name: str) -> None:
        """A name with a fault that others may have, too."""
        self._found.setdefault(fault, []).append(short(name))

    def raise_any(self) -> None:
        if self._found:
            raise WeightsError("; ".join(f"{fault}: {listed(names)}" for fault, names in self._found.items()))


def paired(found: Mapping[tuple[str, str], str], faults: Faults) -> dict[str, Stored]:
    """(module, "a" or "b") -> tensor as pairs; a matrix without its other one is a fault."""
    modules = dict.fromkeys(module for module, _ in found)
    for module in modules:
        for one, other in ("ab", "ba"):
            if (module, one) not in found:
                faults.add("one matrix of a pair without the other", found[module, other])
    return {m: Stored(found[m, "a"], found[m, "b"]) for m in modules if (m, "a") in found and (m, "b") in found}


def adapted(names: AdapterNames, merging: bool = False) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the modules that can have a pair where requests are answered, or where pairs are merged."""
    return {**names.shapes, **names.merged} if merging else names.shapes


def without_merged(
    file: MappedFile, pairs: Mapping[str, Stored], names: AdapterNames, faults: Faults
) -> dict[str, Stored]:
    """The pairs without those that can only be merged into weights; one of them that adds something is a fault."""
    for module, pair in pairs.items():
        if module in names.merged and file.read(pair.a).any() and file.read(pair.b).any():
            faults.add(ONLY_MERGED, module)
    return {module: pair for module, pair in pairs.items() if module not in names.merged}


def check_modules(modules: Sequence[str], shapes: Mapping[str, tuple[int, ...]], faults: Faults) -> None:
    """Adds those that can have no pair."""
    kinds = list(dict.fromkeys(_kind(name) for name in shapes))
    for module in modules:
        if module in shapes:
            continue
        if _kind(module) in kinds:
            faults.add("not in this model, which has fewer or other layers", module)
        else:
            faults.add(f"not a module that adapters are applied to (these are {', '.join(kinds)})", module)


def read_pairs(
    file: MappedFile, stored: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, LowRank]:
    """The pairs of modules that the model has, with their scale in `b`.

    Raises:
      WeightsError: matrices of another type or shape, or with NaN or an infinity, all of them named.
    """
    faults = Faults()
    for module, pair in stored.items():
        for name in (pair.a, pair.b):
            dtype = file.entries[name].dtype
            if dtype not in DTYPES:
                faults.add(f"{dtype.name}, not one of {', '.join(map(str, DTYPES))}", name)
        if fault := misfit(file.entries[pair.a].shape, file.entries[pair.b].shape, shapes[module]):
            faults.add(fault, module)
    faults.raise_any()
    pairs = {module: _read(file, pair, faults) for module, pair in stored.items()}
    faults.raise_any()
    return pairs


def misfit(a: Sequence[int], b: Sequence[int], matrix: Sequence[int]) -> str:
    """Why matrices of shapes `a` and `b` are no pair for one of shape `matrix`, or an empty string."""
    *experts, rows, columns = matrix
    if len(a) == len(b) == len(matrix) and a[-2] == b[-1] > 0:
        if [*a[:-2], a[-1]] == [*experts, columns] and [*b[:-1]] == [*experts, rows]:
            return ""
    found = f"{quoted(list(a))} and {quoted(list(b))}"
    one, two = ([*experts, *ends] for ends in (("rank", columns), (rows, "rank")))
    wanted = " and ".join("[" + ", ".join(map(str, shape)) + "]" for shape in (one, two))
    return f"matrices of shapes {found}, where this model's are {wanted} (an adapter of another model?)"


def _read(file: MappedFile, pair: Stored, faults: Faults) -> LowRank:
    a, b = (np.array(file.read(name), np.float32) for name in (pair.a, pair.b))
    for name, matrix in ((pair.a, a), (pair.b, b)):
        if not np.isfinite(matrix).all():
            faults.add("numbers that are not finite", name)
    with np.errstate(over="ignore", invalid="ignore"):  # found by `Adapter.of`
        return LowRank(a, b if pair.scale == 1 else b * np.float32(pair.scale))


def _kind(module: str) -> str:
    return re.sub(r"\.[0-9]+\.", ".N.", module)
