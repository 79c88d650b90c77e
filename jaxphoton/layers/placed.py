"""Matrices as a device multiplies by them: for the length of one program they know what it is compiled for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.weight import Dense, RowScaled, Weight
from kernels_pallas.dispatch import Target
from kernels_pallas.quant_matmul import quant_matmul

FEW_BITS = (RowScaled, Grouped)
BLOCK = 256  # rows: widened, one of a model's matrix stays in a core's cache
LEAST = 2**20  # numbers of a matrix that is worth a loop


def placed(params: Any, backend: str | None = None, target: Target | None = None) -> Any:
    """A tree of parameters whose matrices of few bits multiply as the device does it best; the leaves stay the same.
    Those in stacks (of experts, of the vision encoder) are left alone.

    On GPUs `Grouped` ones multiply by a kernel: XLA would write them out in the dtype of its input before every
    product, which it does not do for factors of whole rows. On a CPU it would do that for both.

    Args:
      backend, target: as of `kernels_pallas.dispatch.choose`; "plain" and "reference" change nothing.
    """
    target = target or Target.of(jax.devices()[0])
    if backend in ("plain", "reference"):
        return params
    kernel = backend in ("triton", "interpret") or target.platform == "cuda"

    def here(node: Any) -> Any:
        if not isinstance(node, FEW_BITS) or len(node.matrix.shape) != 2:
            return node
        if kernel:
            return GroupedByKernel(node, backend, target) if isinstance(node, Grouped) else node
        large = target.platform == "cpu" and node.matrix.size >= LEAST
        return InBlocks(node) if large and node.matrix.shape[0] % BLOCK == 0 else node

    return jax.tree.map(here, params, is_leaf=lambda node: isinstance(node, FEW_BITS))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class GroupedByKernel(Weight):
    """`Grouped` of two axes whose product with rows is a kernel. Never an argument of a program."""

    base: Grouped
    backend: str | None = dataclasses.field(metadata={"static": True})
    target: Target | None = dataclasses.field(metadata={"static": True})

    def einsum(
        self, equation: str, x: jax.Array, out: DTypeLike | None = None, product: DTypeLike | None = None
    ) -> jax.Array:
        if not _by_rows(equation):
            return self.base.einsum(equation, x, out, product)
        base, flat = self.base, x.reshape(-1, x.shape[-1])
        options = {"backend": self.backend, "target": self.target}
        result = quant_matmul(flat, base.numbers, base.scale, base.zero, out=out or x.dtype, **options)
        return result.reshape(*x.shape[:-1], -1)

    def dense(self, dtype: DTypeLike) -> Dense:
        return self.base.dense(dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class InBlocks(Weight):
    """A matrix of two axes whose product with rows is computed block by block of its rows: no more than a block of it
    is ever widened, in the cache, which takes a tenth of the time. Never an argument of a program."""

    base: RowScaled | Grouped

    def einsum(
        self, equation: str, x: jax.Array, out: DTypeLike | None = None, product: DTypeLike | None = None
    ) -> jax.Array:
        if not _by_rows(equation):
            return self.base.einsum(equation, x, out, product)
        flat = x.reshape(-1, x.shape[-1])
        blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, BLOCK, *leaf.shape[1:]), self.base)
        results = lax.map(lambda block: block.einsum("td,fd->tf", flat, out, product), blocks)
        return jnp.moveaxis(results, 0, 1).reshape(*x.shape[:-1], -1)

    def dense(self, dtype: DTypeLike) -> Dense:
        return self.base.dense(dtype)


def _by_rows(equation: str) -> bool:
    """Whether the last axis of x becomes the rows of a matrix of two axes."""
    operands, _, result = equation.partition("->")
    x, matrix = operands.split(",")
    return matrix == result[-1] + x[-1] and result[:-1] == x[:-1]
