"""Matrices as a device multiplies by them: for the length of one program they know what it is compiled for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
from jax.typing import DTypeLike

from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.weight import Dense, Weight
from kernels_pallas.dispatch import Target
from kernels_pallas.quant_matmul import quant_matmul


def placed(params: Any, backend: str | None = None, target: Target | None = None) -> Any:
    """A tree of parameters whose `Grouped` matrices multiply by a kernel on GPUs; the leaves stay the same. Those of
    experts, in stacks, are left alone.

    There XLA would write such a matrix out in the dtype of its input before every product. It does not do that for
    factors of whole rows, which stay as they are.
    """
    target = target or Target.of(jax.devices()[0])
    if backend in ("reference", "loop") or (backend in (None, "auto") and target.platform != "cuda"):
        return params

    def with_kernel(node: Any) -> Any:
        if not isinstance(node, Grouped) or len(node.matrix.shape) != 2:
            return node
        return GroupedByKernel(node, backend, target)

    return jax.tree.map(with_kernel, params, is_leaf=lambda node: isinstance(node, Grouped))


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


def _by_rows(equation: str) -> bool:
    """Whether the last axis of x becomes the rows of a matrix of two axes."""
    operands, _, result = equation.partition("->")
    x, matrix = operands.split(",")
    return matrix == result[-1] + x[-1] and result[:-1] == x[:-1]
