"""Adapters of the text decoder as programs take them: the pairs of matrices that lie in one, in one.

q, k and v read one input and lie in one matrix, as do gate and values; so do their pairs, so that they are two products
beside a matrix: the ranks lie side by side, with zeros where a rank is not the rows'. Every `a` is a leaf of its own: a
part of a stacked one would be copied for its product. A `b` is cut without a copy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.layers.adapters import AdaptedColumns, AdaptedRows, LayerPairs
from jaxphoton.layers.spec import Joined, Specs, abstract
from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.models.llama.config import TextConfig
from jaxphoton.models.llama.params import TextLayer, TextParams, gate_up, gate_up_rows, qkv, qkv_rows
from jaxphoton.models.naming import WeightsError

_MODULE = re.compile(r"\w+\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)_proj")


@struct.dataclass
class TextPairs:
    """The pairs of L layers in S slots of rank R."""

    qkv: LayerPairs  # a [S, 3 R, D], b [L, (N + 2 K) * H, S, 3 R]: the ranks of q, k, v
    out: LayerPairs  # a [S, R, N * H], b [L, D, S, R]
    up: LayerPairs  # a [S, 2 R, D], b [L, 2 * F, S, 2 R]: the ranks of the gate, the values
    down: LayerPairs  # a [S, R, F], b [L, D, S, R]


def room(c: TextConfig, dtype: DTypeLike, slots: int, rank: int) -> TextPairs:
    """So many slots of that rank, with `jaxphoton.layers.spec.Spec` leaves.

    Their axes are those of the matrices, so that on a mesh a device has the pairs of its share: `b` beside rows, `a`
    beside columns.
    """
    make, layers, embed = Specs(dtype), c.num_hidden_layers, {"embed": c.hidden_size}

    def pairs(ranks: int, rows: Mapping[str, int | Joined], columns: Mapping[str, int | Joined]) -> LayerPairs:
        a = make.leaf(_slots=slots, _rank=ranks * rank, **columns)
        return LayerPairs((a,) * layers, make.leaf(layers=layers, **rows, _slots=slots, _rank=ranks * rank))

    return TextPairs(
        qkv=pairs(3, {"inputs": qkv(c)}, embed),
        out=pairs(1, embed, {"heads": c.num_attention_heads * c.head_dim}),
        up=pairs(2, {"inputs": gate_up(c)}, embed),
        down=pairs(1, embed, {"mlp": c.intermediate_size}),
    )


def slot(c: TextConfig, adapter: Adapter, dtype: DTypeLike, rank: int) -> TextPairs:
    """One slot with an adapter in it, NumPy leaves: what the adapter lacks, and the rest of the rank, is zeros.

    Raises:
      WeightsError: pairs that do not fit, by name.
    """
    one = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract(room(c, dtype, 1, rank)))
    wrong = [f"{name}: {fault}" for name, pair in adapter.pairs.items() if (fault := _fill(c, one, name, pair, rank))]
    if wrong:
        raise WeightsError(f"the adapter {adapter.name} does not fit: {'; '.join(wrong)}")
    return one


def with_adapters(params: TextParams, pool: TextPairs, slots: jax.Array) -> TextParams:
    """A decoder whose matrices add, for each row of the batch, the pairs of its slot, int32 [B]."""
    return replace(params, layers=tuple(_adapted(layer, pool, i, slots) for i, layer in enumerate(params.layers)))


def _adapted(layer: TextLayer, pool: TextPairs, index: int, slots: jax.Array) -> TextLayer:
    return TextLayer(
        qkv_w=AdaptedRows(layer.qkv_w, (pool.qkv[index],), slots),
        out_w=AdaptedColumns(layer.out_w, (pool.out[index],), slots),
        up_w=AdaptedRows(layer.up_w, (pool.up[index],), slots),
        down_w=AdaptedColumns(layer.down_w, (pool.down[index],), slots),
    )


def _fill(c: TextConfig, one: TextPairs, name: str, pair: LowRank, rank: int) -> str | None:
    """Puts a pair where it belongs in the only slot; what is wrong with it, or None."""
    module, places = _MODULE.fullmatch(name), _places(c, one)
    if module is None or module[2] not in places or int(module[1]) >= c.num_hidden_layers:
        return "the model has no such matrix"
    pairs, rows, place = places[module[2]]
    a, b = pairs.a[int(module[1])][0], pairs.b[int(module[1]), rows, 0]
    if pair.a.shape != (pair.rank, a.shape[1]) or pair.b.shape != (len(b), pair.rank):
        found = f"{list(pair.a.shape)} and {list(pair.b.shape)}"
        return f"shapes {found}, not [rank, {a.shape[1]}] and [{len(b)}, rank]"
    if pair.rank > rank:
        return f"rank {pair.rank}; there is room for {rank}"
    ranks = slice(place * rank, place * rank + pair.rank)
    a[ranks], b[:, ranks] = pair.a, pair.b
    # What is not finite in one slot would spread to rows of the others: 0 times infinity is no number.
    if not (np.isfinite(a[ranks]).all() and np.isfinite(b[:, ranks]).all()):
        return f"numbers too large for {a.dtype}"
    return None


def _places(c: TextConfig, one: TextPairs) -> dict[str, tuple[LayerPairs, slice, int]]:
    """Of each matrix of a checkpoint: its pairs, its rows there, and which of the ranks is its own."""
    found: dict[str, tuple[Any, slice, int]] = {"o": (one.out, slice(None), 0), "down": (one.down, slice(None), 0)}
    for pairs, parts in ((one.qkv, qkv_rows(c)), (one.up, gate_up_rows(c))):
        found |= {name: (pairs, rows, place) for place, (name, rows) in enumerate(parts.items())}
    return found
