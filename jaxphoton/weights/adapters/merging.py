"""A checkpoint with an adapter merged into its matrices: W + b @ a, in float32, whatever type it is stored in."""

from __future__ import annotations

from functools import partial

import numpy as np

from jaxphoton.messages import escaped
from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.models.naming import Source, WeightsError
from jaxphoton.models.protocol import Family
from jaxphoton.weights.adapters.pairs import Faults
from jaxphoton.weights.checkpoint import Checkpoint
from jaxphoton.weights.quantized.view import Made, View
from jaxphoton.weights.stored import FEW

FLOAT32 = np.dtype(np.float32)
Pairs = list[tuple[Source, LowRank]]  # of one tensor: those of its halves


def merged(checkpoint: Checkpoint, family: Family, adapter: Adapter) -> Checkpoint:
    """The checkpoint of a model of this family with an adapter merged into its tensors, one by one as they are read.

    Args:
      adapter: as `load_adapter` reads it, with `merging` or without.

    Raises:
      WeightsError: pairs of matrices that it has not, or has in few bits, by name.
    """
    sources, faults = family.tensors.sources(checkpoint)[0], Faults()
    pairs: dict[str, Pairs] = {}
    for module, pair in adapter.pairs.items():
        source = sources.get(f"{module}.weight")
        if source is None:
            faults.add("no matrix that can be merged into", module)
        elif checkpoint.entry(source.name).dtype in FEW:
            faults.add("in few bits: merge into the weights that these were made of", module)
        else:
            pairs.setdefault(source.name, []).append((source, pair))
    try:
        faults.raise_any()
    except WeightsError as error:
        raise WeightsError(f"{escaped(checkpoint.path)}: the adapter {adapter.name}: {error}") from None
    made = {
        name: Made(FLOAT32, checkpoint.entry(name).shape, partial(_read, checkpoint, name, own))
        for name, own in pairs.items()
    }
    return View(checkpoint, made, frozenset())


def _read(checkpoint: Checkpoint, name: str, pairs: Pairs) -> np.ndarray:
    tensor = np.array(checkpoint.read(name), np.float32)
    for source, pair in pairs:
        part = tensor if source.half is None else np.split(tensor, 2)[source.half]  # views
        part = part.T if source.transposed else part
        part += pair.b @ pair.a
    return tensor
