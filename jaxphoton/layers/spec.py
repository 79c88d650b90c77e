"""What the leaves of a parameter tree are, before there are any: shapes, dtypes, logical axes, forms of matrices.

A network builds one tree of `Spec` leaves; the abstract tree that programs are compiled for, the tree of axes and
shardings are read off it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton.layers.grouped import PACKED, Grouped
from jaxphoton.layers.weight import Dense, RowScaled, Weight


class Joined:
    """An axis of parts that lie one after another: the name and size of each, in order; names may come again.

    Split over a mesh as it lies, a device would have a piece of some part. `jaxphoton.layers.mesh` lays it so that each
    has its share of every part.
    """

    def __init__(self, *parts: tuple[str, int]):
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Joined) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return f"Joined{self.parts}"

    def __len__(self) -> int:
        return sum(size for _, size in self.parts)


Axis = str | Joined | None


def axis_names(axis: Axis) -> tuple[str, ...]:
    """The logical axes in one of an array."""
    if isinstance(axis, Joined):
        return tuple(name for name, _ in axis.parts)
    return () if axis is None else (axis,)


@dataclass(frozen=True, slots=True)
class Spec:
    """One leaf. `axes` says of each axis of `shape` what it counts ("vocab", joined ones), None for nothing.

    A number of the leaf may stand for several neighbours of such an axis: the factor of a group, or packed ones.
    """

    shape: tuple[int, ...]
    dtype: jnp.dtype
    axes: tuple[Axis, ...]


class MatrixForm(Protocol):
    """How a matrix is stored in few bits: from the spec of the plain matrix to a `Weight` of the specs of its leaves.

    Attributes:
      dtype: name of that of the numbers.
    """

    @property
    def dtype(self) -> str: ...

    def __call__(self, matrix: Spec) -> Weight: ...


@dataclass(frozen=True, slots=True)
class RowScaledForm:
    """8-bit numbers of `dtype` with a float32 factor a row."""

    dtype: str

    def __call__(self, matrix: Spec) -> RowScaled:
        scale = Spec(matrix.shape[:-1], jnp.dtype(jnp.float32), matrix.axes[:-1])
        return RowScaled(dataclasses.replace(matrix, dtype=jnp.dtype(self.dtype)), scale)


@dataclass(frozen=True, slots=True)
class GroupedForm:
    """Numbers of `dtype` (int4, int8, float8) with a factor for every `group` columns of a row, which fill the row.

    Attributes:
      scale: dtype of the factors.
      zero: dtype of the zero points, None where there are none.
    """

    dtype: str
    group: int
    scale: str = "bfloat16"
    zero: str | None = None

    def __call__(self, matrix: Spec) -> Grouped:
        groups, rest = divmod(matrix.shape[-1], self.group)
        assert not rest and (self.dtype != "int4" or matrix.shape[-1] % 2 == 0), f"{matrix.shape} as {self}"
        factors = Spec((*matrix.shape[:-1], groups), jnp.dtype(self.scale), matrix.axes)
        stored = dataclasses.replace(matrix, dtype=jnp.dtype(self.dtype))
        if self.dtype == "int4":
            stored = Spec((*matrix.shape[:-1], matrix.shape[-1] // 2), PACKED, matrix.axes)
        zero = None if self.zero is None else dataclasses.replace(factors, dtype=jnp.dtype(self.zero))
        return Grouped(stored, factors, zero)


DOTTED: Any = {"simple": True, "separator": "."}
INT8 = RowScaledForm("int8")
FLOAT8 = RowScaledForm("float8_e4m3fn")


class Specs:
    """Makes the specs of a network whose numbers are of one dtype.

    Axes are given in order as keywords, `leaf(vocab=51200, embed=2048)`; a name that begins with an underscore is none,
    and that of a `Joined` axis is for the reader.
    """

    def __init__(self, dtype: DTypeLike):
        self.dtype = jnp.dtype(dtype)

    def leaf(self, **axes: int | Joined) -> Spec:
        counted = tuple(
            size if isinstance(size, Joined) else None if name.startswith("_") else name for name, size in axes.items()
        )
        shape = tuple(len(size) if isinstance(size, Joined) else size for size in axes.values())
        return Spec(shape, self.dtype, counted)

    def float32(self, **axes: int | Joined) -> Spec:
        """A leaf that is float32 in every dtype of the model."""
        return dataclasses.replace(self.leaf(**axes), dtype=jnp.dtype(jnp.float32))

    def matrix(self, **axes: int | Joined) -> Dense:
        return Dense(self.leaf(**axes))


def with_forms(tree: Any, forms: Mapping[str, MatrixForm]) -> Any:
    """A tree of `Spec` or jax.ShapeDtypeStruct leaves with the plain matrices of these paths in other forms."""

    def formed(path: Any, node: Any) -> Any:
        form = forms.get(_plain(jax.tree_util.keystr((*path, jax.tree_util.GetAttrKey("matrix")), **DOTTED)))
        if form is None or not isinstance(node, Dense):
            return node
        if isinstance(node.matrix, Spec):
            return form(node.matrix)
        shape, dtype = node.matrix.shape, node.matrix.dtype
        return abstract(form(Spec(shape, dtype, (None,) * len(shape))))

    return jax.tree_util.tree_map_with_path(formed, tree, is_leaf=lambda node: isinstance(node, Weight))


def abstract(specs: Any) -> Any:
    """The tree with jax.ShapeDtypeStruct leaves."""
    return jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), specs)


def like(specs: Any, params: Any) -> Any:
    """The specs of a network whose matrices are plain, with these in the forms that they have in a tree of arrays or
    shapes."""

    def formed(spec: Any, node: Any) -> Any:
        match node:
            case RowScaled():
                return RowScaledForm(node.matrix.dtype.name)(spec.matrix)
            case Grouped():
                packed = node.matrix.dtype == PACKED
                columns, groups = node.matrix.shape[-1] * (1 + packed), node.scale.shape[-1]
                zero = None if node.zero is None else node.zero.dtype.name
                dtype = "int4" if packed else node.matrix.dtype.name
                return GroupedForm(dtype, columns // groups, node.scale.dtype.name, zero)(spec.matrix)
            case _:
                return spec

    return jax.tree.map(formed, specs, params, is_leaf=lambda node: isinstance(node, Weight))


def by_path(tree: Any) -> dict[str, Any]:
    """Dotted path -> leaf, in the order of the tree's leaves.

    A matrix has the path of its weight, and the factors and zero points of `fc1_w` are `fc1_scale` and `fc1_zero`
    beside it: the names under which converted checkpoints keep them, whatever classes the tree is made of.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_plain(jax.tree_util.keystr(path, **DOTTED)): leaf for path, leaf in paths}


def weights_by_path(tree: Any) -> dict[str, Any]:
    """The matrices of a tree of specs, with what stands beside them."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: isinstance(node, Weight))
    return {jax.tree_util.keystr(path, **DOTTED): node for path, node in nodes}


def nbytes(leaf: Any) -> int:
    """Bytes that an array, or what describes one, takes on a device: two numbers of 4 bits lie in one."""
    dtype = jnp.dtype(leaf.dtype)
    return leaf.size * dtype.itemsize if dtype != jnp.int4 else (leaf.size + 1) // 2


def _plain(path: str) -> str:
    front, _, last = path.rpartition(".")
    if last == "matrix":
        return front
    return f"{front.removesuffix('_w')}_{last}" if last in ("scale", "zero") and front.endswith("_w") else path
