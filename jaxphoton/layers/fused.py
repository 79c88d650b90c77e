"""The parts of a layer in a decode step, of one position a row: each by a kernel, or by XLA.

With all of them by kernels a dense layer is few launches: norm (with the sum of what the layer before gave in parts),
input product, attention (behind the product that its factors are made of, where it has some), output product. Shapes: x
and h [B, D], u [B, Q + F], a [B, A], parts float32 [S, B, D].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxphoton.layers.mlp import gelu_exact, gelu_tanh
from jaxphoton.layers.norms import layer_norm
from jaxphoton.layers.placed import GroupedByKernel
from jaxphoton.layers.weight import Dense, RowScaled, Weight, linear, matmul
from kernels_pallas import dispatch
from kernels_pallas.dispatch import Index
from kernels_pallas.input_product import input_product
from kernels_pallas.output_product import output_product
from kernels_pallas.residual_norm import residual_norm
from kernels_pallas.tau_product import tau_product

# (parts float32 [S, B, 2 N], terms float32 [L, B, N]): q and v of a head are multiplied by tanh of the sum of its
# parts, those of q first, plus the term of its layer.
Factors = tuple[jax.Array, jax.Array]
AttendJoined = Callable[[Index, jax.Array, jax.Array, jax.Array, Factors | None, Any], tuple[jax.Array, Any]]


@dataclass(frozen=True, slots=True)
class StepParts:
    """How the parts are computed.

    Attributes:
      kernels: parts that kernels compute: "norm", "input", "attention", "output"; XLA computes the others.
      backend, target: as of `kernels_pallas.dispatch.choose`, which decides what a kernel is.
      attend: attention by a kernel, of the whole u: attend(layer, u, cos, sin, factors, cache) -> (a, cache) with cos
        and sin float32 [B, R / 2]. None: XLA splits u and rotates.
    """

    kernels: tuple[str, ...]
    backend: str | None = None
    target: dispatch.Target | None = None
    attend: AttendJoined | None = None

    def norm(
        self, x: jax.Array, parts: jax.Array, bias: jax.Array, norm: jax.Array, layer: Index, norm_layer: Index
    ) -> tuple[jax.Array, jax.Array]:
        """(x plus the parts and the biases of a layer, summed in float32 and rounded once; its LayerNorm).

        bias [L, R, D], of which `layer` is taken, norm [M, 2, D], of which `norm_layer`.
        """
        if "norm" in self.kernels:
            x, h = residual_norm(x, parts, bias, norm, layer=layer, norm_layer=norm_layer, **self._options)
            assert h is not None
            return x, h
        x = self._summed(x, parts, bias, layer)
        return x, layer_norm(x, norm[norm_layer])

    def end(self, x: jax.Array, parts: jax.Array, bias: jax.Array, layer: Index) -> jax.Array:
        """The x of `norm` alone."""
        if "norm" in self.kernels:
            return residual_norm(x, parts, bias, layer=layer, **self._options)[0]
        return self._summed(x, parts, bias, layer)

    def input(
        self, h: jax.Array, weight: Weight, bias: jax.Array, layer: Index, gelu_from: int | None = None
    ) -> jax.Array:
        """h times a weight [Q + F, D] plus the bias [L, Q + F] of `layer`; from column `gelu_from` on through gelu."""
        if (arrays := self._arrays("input", weight, "input_product", RowScaled)) is not None:
            return input_product(h, bias=bias, layer=layer, gelu_from=gelu_from, **arrays, **self._options)
        u = linear(h, weight, bias[layer])
        if gelu_from is None:
            return u
        # Selected, not cut and joined, so that it happens where the bias is added.
        through = lax.iota(jnp.int32, u.shape[1])[None] >= gelu_from
        return jnp.where(through, gelu_tanh(u), u)

    def factor_parts(self, u: jax.Array, weight: Weight) -> jax.Array:
        """gelu of the first columns of u times a weight [2 N, Q], float32 [S, B, 2 N], in parts for `attend`."""
        if (arrays := self._arrays("attention", weight, "tau_product")) is not None:
            return tau_product(u, **arrays, **self._options)
        return matmul(gelu_exact(u[:, : weight.columns]), weight, out=jnp.float32)[None]

    def output(self, a: jax.Array, u: jax.Array, weight: Weight) -> jax.Array:
        """[a | the last F columns of u] times a weight [D, A + F], in parts for `norm`."""
        if (arrays := self._arrays("output", weight, "output_product", RowScaled)) is not None:
            return output_product(a, u, **arrays, **self._options)
        hidden = weight.columns - a.shape[1]
        return matmul(jnp.concatenate([a, u[:, u.shape[1] - hidden :]], axis=1), weight, out=jnp.float32)[None]

    @staticmethod
    def _summed(x: jax.Array, parts: jax.Array, bias: jax.Array, layer: Index) -> jax.Array:
        added = jnp.sum(parts, axis=0) + jnp.sum(bias[layer].astype(jnp.float32), axis=0)[None]
        return (x.astype(jnp.float32) + added).astype(x.dtype)

    @property
    def _options(self) -> dict[str, Any]:
        return {"backend": self.backend, "target": self.target}

    def _arrays(self, part: str, weight: Weight, op: str, *others: type[RowScaled]) -> dict[str, jax.Array] | None:
        """What the kernel `op` of a part reads of a plain matrix, or of one in other forms; None where XLA computes it.

        Matrices in groups have a kernel of their own.
        """
        if part not in self.kernels or isinstance(weight, GroupedByKernel):
            return None
        if isinstance(weight, Dense):
            return {"matrix": weight.matrix}
        if isinstance(weight, others):
            return {"matrix": weight.matrix, "scale": weight.scale}
        # Says so, or raises where kernels were asked for.
        dispatch.choose(op, self.backend, self.target, [f"it takes no {type(weight).__name__} matrices"])
        return None
