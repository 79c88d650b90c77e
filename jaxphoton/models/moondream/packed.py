"""Adapters as programs take them: the pairs of both halves of a layer's matrices in one, so that they are few kernels.

The matrices of attention and MLP lie in one on each side of a dense layer, and so do their pairs: their ranks lie side
by side, with zeros where a rank is not the other matrix's. XLA computes the one `a` with the matrix itself, in one
kernel; the pairs of a layer are then two kernels each way. Every `a` is a leaf of its own: a part of a stacked one
would be copied for that kernel. A `b` is cut without a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.layers.adapters import LayerPairs, Pairs
from jaxphoton.layers.spec import Joined, Spec, Specs
from jaxphoton.models.moondream.adapters import OfLayer, TextPairs, dense_layers
from jaxphoton.models.moondream.config import TextConfig
from jaxphoton.models.moondream.params import expert_inputs, inputs, outputs, qkv

Axes = Mapping[str, int | Joined]  # as `Specs.leaf` takes them


@struct.dataclass
class PackedPairs:
    """The pairs of M dense layers, and of those behind them, which have experts; None where there are none."""

    dense_in: LayerPairs | None  # a [S, 2 R, D], b [M, Q + F, S, 2 R]: the rank of qkv, then that of fc1
    dense_out: LayerPairs | None  # a [S, 2 R, N * H + F], b [M, D, S, 2 R]: the rank of proj, then that of fc2
    direct: LayerPairs | None  # a [S, R, D], b [M, D, S, R]: of `attn.proj@input`, in models without experts
    qkv: LayerPairs | None  # of layers with experts
    proj: LayerPairs | None
    experts_fc1: Pairs | None  # as in TextPairs
    experts_fc2: Pairs | None

    def of_layer(self, index: int) -> OfLayer:
        dense = 0 if self.dense_in is None else len(self.dense_in.a)
        direct = None if self.direct is None else self.direct[index]
        into, out, row = (
            (self.dense_in, self.dense_out, index) if index < dense else (self.qkv, self.proj, index - dense)
        )
        assert into is not None and out is not None
        return (into[row],), (out[row],), direct


def room(config: TextConfig, dtype: DTypeLike, slots: int, rank: int) -> PackedPairs:
    """So many slots of that rank, with `jaxphoton.layers.spec.Spec` leaves.

    Their axes are those of the matrices, so that on a mesh a device has the pairs of its share: `b` beside rows, `a`
    beside columns.
    """
    make, moe, dense = Specs(dtype), config.moe, dense_layers(config)
    embed, behind = {"embed": config.dim}, config.n_layers - dense

    def a(lead: Axes, rank: int, columns: Axes) -> Spec:
        return make.leaf(**lead, _slots=slots, _rank=rank, **columns)

    def b(lead: Axes, rank: int, rows: Axes) -> Spec:
        return make.leaf(**lead, **rows, _slots=slots, _rank=rank)

    def pairs(count: int, rank: int, rows: Axes, columns: Axes) -> LayerPairs | None:
        if not count:
            return None
        return LayerPairs(tuple(a({}, rank, columns) for _ in range(count)), b({"layers": count}, rank, rows))

    fc1 = fc2 = None
    if moe is not None and behind:
        each, lead = -(-rank // moe.experts_per_token), {"layers": behind, "experts": moe.num_experts}
        fc1 = Pairs(a(lead, each, embed), b(lead, each, {"inputs": expert_inputs(moe)}))
        fc2 = Pairs(a(lead, each, {"expert_mlp": moe.expert_inner_dim}), b(lead, each, embed))
    return PackedPairs(
        dense_in=pairs(dense, 2 * rank, {"inputs": inputs(config)}, embed),
        dense_out=pairs(dense, 2 * rank, embed, {"outputs": outputs(config)}),
        direct=pairs(config.n_layers, rank, embed, {"_inputs": config.dim}) if moe is None else None,
        qkv=pairs(behind, rank, {"inputs": qkv(config)}, embed),
        proj=pairs(behind, rank, embed, {"heads": config.n_heads * config.head_dim}),
        experts_fc1=fc1,
        experts_fc2=fc2,
    )


def pack(plain: TextPairs) -> PackedPairs:
    """The same pairs, of NumPy leaves."""
    dense = 0 if plain.fc1 is None else len(plain.fc1.a)
    behind = dense < len(plain.qkv.a)
    into = out = None
    if plain.fc1 is not None and plain.fc2 is not None:
        qkv, proj = (Pairs(pairs.a[:dense], pairs.b[:dense]) for pairs in (plain.qkv, plain.proj))
        into = LayerPairs(_layers(_below(qkv.a, plain.fc1.a)), _diagonal(qkv.b, plain.fc1.b, rows=1))
        out = LayerPairs(_layers(_diagonal(proj.a, plain.fc2.a, rows=2)), _beside(proj.b, plain.fc2.b))
    return PackedPairs(
        dense_in=into,
        dense_out=out,
        direct=None if plain.proj_input is None else _apart(plain.proj_input, 0),
        qkv=_apart(plain.qkv, dense) if behind else None,
        proj=_apart(plain.proj, dense) if behind else None,
        experts_fc1=plain.experts_fc1,
        experts_fc2=plain.experts_fc2,
    )


def _apart(pairs: Pairs, first: int) -> LayerPairs:
    """Those of the layers from `first` on."""
    return LayerPairs(_layers(pairs.a[first:]), pairs.b[first:])


def _layers(a: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(of_layer) for of_layer in a)


def _below(one: Any, other: Any) -> np.ndarray:
    return np.concatenate([one, other], axis=-2)


def _beside(one: Any, other: Any) -> np.ndarray:
    return np.concatenate([one, other], axis=-1)


def _diagonal(one: np.ndarray, other: np.ndarray, rows: int) -> np.ndarray:
    """[one, 0; 0, other] in the axis `rows` and the last one."""
    shape = list(one.shape)
    shape[rows] += other.shape[rows]
    shape[-1] += other.shape[-1]
    whole = np.zeros(shape, one.dtype)
    start = [slice(None)] * one.ndim
    end = list(start)
    start[rows], start[-1] = slice(one.shape[rows]), slice(one.shape[-1])
    end[rows], end[-1] = slice(one.shape[rows], None), slice(one.shape[-1], None)
    whole[tuple(start)], whole[tuple(end)] = one, other
    return whole
