"""Adapters of the text decoder: their pairs in slots, stacked over the layers, and the parameters with them.

This is the plain form, matrix by matrix. Programs take another (`packed`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.layers.adapters import AdaptedColumns, AdaptedRows, ChosenPairs, Pairs
from jaxphoton.layers.moe import ExpertPairs
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


# Those of its input matrix (one for all rows, or one for each block), of its output matrix (the same of columns), and
# of what its input adds to its output.
OfLayer = tuple[tuple[Pairs, ...], tuple[Pairs, ...], Pairs | None]


class Pool(Protocol):
    """Pairs in slots, in one form or another."""

    @property
    def experts_fc1(self) -> Pairs | None: ...
    @property
    def experts_fc2(self) -> Pairs | None: ...
    def of_layer(self, index: int) -> OfLayer: ...


@struct.dataclass
class TextPairs:
    """The pairs of L layers, of which the first M are dense; None where no layer has such a matrix."""

    qkv: Pairs  # [L]
    proj: Pairs  # [L]
    proj_input: Pairs | None  # [L]; reads what qkv reads, and is added where proj is. Not in models with experts
    fc1: Pairs | None  # [M]
    fc2: Pairs | None  # [M]
    experts_fc1: Pairs | None = None  # [L - M, E]; of R / k each, where a token has k experts
    experts_fc2: Pairs | None = None  # [L - M, E]

    def of_layer(self, index: int) -> OfLayer:
        def of(pairs: Pairs) -> Pairs:
            return Pairs(pairs.a[index], pairs.b[index])

        direct = None if self.proj_input is None else of(self.proj_input)
        if self.fc1 is None or self.fc2 is None or index >= len(self.fc1.a):
            return (of(self.qkv),), (of(self.proj),), direct
        return (of(self.qkv), of(self.fc1)), (of(self.proj), of(self.fc2)), direct


def abstract(config: TextConfig, dtype: DTypeLike, slots: int, rank: int) -> TextPairs:
    """So many slots of that rank, with jax.ShapeDtypeStruct leaves."""

    def pairs(*leading: int, rows: int, columns: int, rank: int = rank) -> Pairs:
        a, b = (*leading, slots, rank, columns), (*leading, rows, slots, rank)
        return Pairs(jax.ShapeDtypeStruct(a, dtype), jax.ShapeDtypeStruct(b, dtype))

    dense, attended = dense_layers(config), config.n_heads * config.head_dim
    experts = {}
    if config.moe is not None and (layers := config.n_layers - dense):
        inner, each = config.moe.expert_inner_dim, -(-rank // config.moe.experts_per_token)
        of_each = partial(pairs, layers, config.moe.num_experts, rank=each)
        experts["experts_fc1"] = of_each(rows=2 * inner, columns=config.dim)
        experts["experts_fc2"] = of_each(rows=config.dim, columns=inner)
    return TextPairs(
        qkv=pairs(config.n_layers, rows=config.qkv_dim, columns=config.dim),
        proj=pairs(config.n_layers, rows=config.dim, columns=attended),
        proj_input=pairs(config.n_layers, rows=config.dim, columns=config.dim) if config.moe is None else None,
        fc1=pairs(dense, rows=config.ff_dim, columns=config.dim) if dense else None,
        fc2=pairs(dense, rows=config.dim, columns=config.ff_dim) if dense else None,
        **experts,
    )


def rank_of(config: TextConfig, adapter: Adapter) -> int:
    """The smallest rank of room that an adapter needs; experts have a share of it, so that those of a token have it
    together."""
    share = 1 if config.moe is None else config.moe.experts_per_token
    return max((pair.rank * (share if pair.a.ndim == 3 else 1) for pair in adapter.pairs.values()), default=1)


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


def new(config: TextConfig, key: jax.Array, rank: int, dtype: DTypeLike) -> TextPairs:
    """One slot to train: `a` drawn at random, `b` zero; nothing for `attn.proj@input`, which no other tool reads."""
    shapes = replace(abstract(config, dtype, 1, rank), proj_input=None)
    kinds, tree = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, Pairs))
    drawn = []
    for one, own in zip(kinds, jax.random.split(key, len(kinds)), strict=True):
        scale = jnp.asarray(one.a.shape[-1] ** -0.5, dtype)
        drawn.append(Pairs(scale * jax.random.normal(own, one.a.shape, dtype), jnp.zeros(one.b.shape, dtype)))
    return jax.tree.unflatten(tree, drawn)


def pairs_of(config: TextConfig, pool: TextPairs, slot: int) -> dict[str, LowRank]:
    """What a slot holds, by module, of a pool of NumPy leaves; pairs that add nothing are left out."""
    held: dict[str, LowRank] = {}
    for module, field in MODULES.items():
        experts = getattr(pool, f"experts_{field}", None)
        for pairs, first in ((getattr(pool, field), 0), (experts, dense_layers(config))):
            if pairs is None:
                continue
            for i, (a, b) in enumerate(zip(pairs.a, pairs.b, strict=True)):
                pair = LowRank(a[..., slot, :, :], b[..., slot, :])
                if np.any(pair.a) and np.any(pair.b):
                    held[f"text.blocks.{first + i}.{module}"] = pair
    return held


def with_adapters(params: Params, config: TextConfig, pool: Pool, slots: jax.Array) -> Params:
    """Parameters whose matrices add, for each row of the batch, the pairs of its slot, int32 [B]."""
    dense = dense_layers(config)
    layers = (_adapted(layer, pool, i, dense, slots) for i, layer in enumerate(params.text.layers))
    return replace(params, text=replace(params.text, layers=tuple(layers)))


def _adapted(layer: TextLayer, pool: Pool, index: int, dense: int, slots: jax.Array) -> TextLayer:
    into, out, direct = pool.of_layer(index)
    experts = layer.experts
    if experts is not None:
        assert pool.experts_fc1 is not None and pool.experts_fc2 is not None
        # Not cut: the kernels would be given copies.
        pairs = ExpertPairs(pool.experts_fc1, pool.experts_fc2, slots, index - dense)
        experts = replace(experts, adapters=pairs)
    direct = None if direct is None else ChosenPairs(direct, slots, layer.in_w)
    into, out = AdaptedRows(layer.in_w, into, slots), AdaptedColumns(layer.out_w, out, slots)
    return replace(layer, in_w=into, out_w=out, direct=direct, experts=experts)


def _fill(one: TextPairs, name: str, pair: LowRank) -> str | None:
    """Puts a pair where it belongs in the only slot; what is wrong with it, or None."""
    pairs, index = _place(one, name)
    if pairs is None:
        return "the model has no such matrix"
    (*each, _, rank, columns), rows = pairs.a.shape[1:], pairs.b.shape[-3]
    if pair.a.shape != (*each, pair.rank, columns) or pair.b.shape != (*each, rows, pair.rank):
        found = f"{list(pair.a.shape)} and {list(pair.b.shape)}"
        leading = "".join(f"{size}, " for size in each)
        return f"shapes {found}, not [{leading}rank, {columns}] and [{leading}{rows}, rank]"
    if pair.rank > rank:
        return f"rank {pair.rank}{' of an expert' if each else ''}; there is room for {rank}"
    pairs.a[index][..., 0, : pair.rank, :] = pair.a
    pairs.b[index][..., 0, : pair.rank] = pair.b
    # What is not finite in one slot would spread to rows of the others: 0 times infinity is no number.
    if not (np.isfinite(pairs.a[index]).all() and np.isfinite(pairs.b[index]).all()):
        return f"numbers too large for {pairs.a.dtype}"
    return None


def _place(one: TextPairs, name: str) -> tuple[Pairs | None, int]:
    """The pairs that a module's are among, and the index of its layer there; None where there is no such module."""
    module = _MODULE.fullmatch(name)
    if module is None or module[2] not in MODULES:
        return None, 0
    field, layer = MODULES[module[2]], int(module[1])
    pairs: Pairs | None = getattr(one, field)
    dense = 0 if one.fc1 is None else len(one.fc1.a)
    if field in ("fc1", "fc2") and layer >= dense:
        pairs, layer = getattr(one, f"experts_{field}"), layer - dense
    return (None, 0) if pairs is None or layer >= len(pairs.a) else (pairs, layer)


def dense_layers(config: TextConfig) -> int:
    """How many there are, in front of those with experts."""
    return config.n_layers if config.moe is None else config.moe.start_layer
