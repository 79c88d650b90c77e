"""Adapters of the text decoder: their pairs in slots, stacked over the layers, and the parameters with them.

A decode step receives every leaf as an argument and pays for each on the host: a kind of matrix is one pair of leaves
for all layers, sliced statically.
"""

from __future__ import annotations

import re
from dataclasses import replace

import jax
import numpy as np
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.layers.adapters import AdaptedColumns, AdaptedRows, ChosenPairs, Pairs
from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.models.moondream.config import TextConfig
from jaxphoton.models.moondream.params import Params, TextLayer
from jaxphoton.models.naming import WeightsError

# What follows the number of the block in a module's canonical name -> the field of its pairs.
MODULES = {
    "attn.qkv": "qkv",
    "attn.proj": "proj",
    "attn.proj@input": "proj_input",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
_MODULE = re.compile(r"text\.blocks\.(\d+)\.(.+)")


@struct.dataclass
class TextPairs:
    """The pairs of L layers, of which the first M are dense; None where no layer has such a matrix."""

    qkv: Pairs  # [L]
    proj: Pairs  # [L]
    proj_input: Pairs | None  # [L]; reads what qkv reads, and is added where proj is. Not in models with experts
    fc1: Pairs | None  # [M]
    fc2: Pairs | None  # [M]


def abstract(config: TextConfig, dtype: DTypeLike, slots: int, rank: int) -> TextPairs:
    """So many slots of that rank, with jax.ShapeDtypeStruct leaves."""

    def pairs(layers: int, rows: int, columns: int) -> Pairs:
        a, b = (layers, slots, rank, columns), (layers, rows, slots, rank)
        return Pairs(jax.ShapeDtypeStruct(a, dtype), jax.ShapeDtypeStruct(b, dtype))

    dense, attended = _dense_layers(config), config.n_heads * config.head_dim
    return TextPairs(
        qkv=pairs(config.n_layers, config.qkv_dim, config.dim),
        proj=pairs(config.n_layers, config.dim, attended),
        proj_input=pairs(config.n_layers, config.dim, config.dim) if config.moe is None else None,
        fc1=pairs(dense, config.ff_dim, config.dim) if dense else None,
        fc2=pairs(dense, config.dim, config.ff_dim) if dense else None,
    )


def slot(config: TextConfig, adapter: Adapter, dtype: DTypeLike, rank: int) -> TextPairs:
    """One slot with an adapter in it, NumPy leaves: what the adapter lacks, and the rest of the rank, is zeros.

    Raises:
      WeightsError: pairs that do not fit, by name.
    """
    one = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract(config, dtype, 1, rank))
    wrong = [f"{name}: {fault}" for name, pair in adapter.pairs.items() if (fault := _fill(one, name, pair))]
    if wrong:
        raise WeightsError(f"the adapter {adapter.name} does not fit: {'; '.join(wrong)}")
    return one


def with_adapters(params: Params, config: TextConfig, pool: TextPairs, slots: jax.Array) -> Params:
    """Parameters whose matrices add, for each row of the batch, the pairs of its slot, int32 [B]."""
    dense = _dense_layers(config)
    layers = (_adapted(layer, pool, i, i < dense, slots) for i, layer in enumerate(params.text.layers))
    return replace(params, text=replace(params.text, layers=tuple(layers)))


def _adapted(layer: TextLayer, pool: TextPairs, index: int, dense: bool, slots: jax.Array) -> TextLayer:
    def of(pairs: Pairs) -> Pairs:
        return Pairs(pairs.a[index], pairs.b[index])

    into, out = (of(pool.qkv),), (of(pool.proj),)
    if dense:
        assert pool.fc1 is not None and pool.fc2 is not None
        into, out = (*into, of(pool.fc1)), (*out, of(pool.fc2))
    direct = None if pool.proj_input is None else ChosenPairs(of(pool.proj_input), slots)
    into, out = AdaptedRows(layer.in_w, into, slots), AdaptedColumns(layer.out_w, out, slots)
    return replace(layer, in_w=into, out_w=out, direct=direct)


def _fill(one: TextPairs, name: str, pair: LowRank) -> str | None:
    """Puts a pair where it belongs in the only slot; what is wrong with it, or None."""
    module = _MODULE.fullmatch(name)
    pairs: Pairs | None = getattr(one, MODULES[module[2]]) if module and module[2] in MODULES else None
    if module is None or pairs is None or int(module[1]) >= len(pairs.a):
        return "the model has no such matrix"
    (_, _, rank, columns), rows, index = pairs.a.shape, pairs.b.shape[1], int(module[1])
    if pair.a.shape != (pair.rank, columns) or pair.b.shape != (rows, pair.rank):
        found = f"{list(pair.a.shape)} and {list(pair.b.shape)}"
        return f"shapes {found}, not [rank, {columns}] and [{rows}, rank]"
    if pair.rank > rank:
        return f"rank {pair.rank}; there is room for {rank}"
    pairs.a[index, 0, : pair.rank] = pair.a
    pairs.b[index, :, 0, : pair.rank] = pair.b
    return None


def _dense_layers(config: TextConfig) -> int:
    return config.n_layers if config.moe is None else config.moe.start_layer
