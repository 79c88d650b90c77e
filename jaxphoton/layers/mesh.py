"""How the parameters of a network lie on a mesh of devices: rules from logical axes, and the order of joined ones.

Every device has a share of the heads, of the inner width of MLPs, of the vocabulary and of the experts, so that a layer
needs no more than sums over the mesh (`jaxphoton.layers.sharded`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jaxphoton.config.mesh import MeshError
from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.spec import Axis, Joined, Spec, axis_names, like
from jaxphoton.layers.weight import Weight
from jaxphoton.messages import quoted

TENSOR = ("model", "expert")
# Logical axis -> the axes of a mesh that it is split over. What a token passes through on its way through a layer is
# split over all devices of an engine; experts are whole on one unless "model" splits each of them.
RULES: Mapping[str, tuple[str, ...]] = {
    "heads": TENSOR,
    "kv_heads": TENSOR,
    "mlp": TENSOR,
    "vocab": TENSOR,
    "experts": ("expert",),
    "expert_mlp": ("model",),
    "vision_heads": TENSOR,
    "vision_mlp": TENSOR,
}
# In an engine the devices have the image encoder whole and share the crops: sums of every patch would cost more than
# the encoder itself (docs/performance.md).
WHOLE_ENCODER: Mapping[str, tuple[str, ...]] = {"vision_heads": (), "vision_mlp": ()}
# What stays whole on every device where they cannot share it evenly: vocabularies are of any size.
WHOLE_IF_UNEVEN = ("vocab",)


class Split:
    """The rules of one mesh.

    Args:
      mesh: its axes are among "data", "model" and "expert"; nothing is split over "data".
      counts: how many of each logical axis there are (`Network.counts`): heads, not numbers.
      rules: beside `RULES`, in place of its entries.

    Raises:
      MeshError: the axes do not divide what is there; with the sizes that would. Or a rule names none of the mesh, or
        one twice.
      TypeError: the rules are none.
    """

    def __init__(
        self, mesh: Mesh | AbstractMesh, counts: Mapping[str, int], rules: Mapping[str, tuple[str, ...]] | None = None
    ):
        self.mesh, self.counts = mesh, counts
        own = {} if rules is None else _given(rules)
        if absent := sorted({name for over in own.values() for name in over} - set(mesh.axis_names)):
            raise MeshError(f"the rules name {', '.join(absent)}; the mesh has the axes {', '.join(mesh.axis_names)}")
        self.rules = {**RULES, **own}
        for axis, over in self.rules.items():
            count, ways = counts.get(axis, 0), self.ways(axis)
            if count % ways and axis in WHOLE_IF_UNEVEN:
                self.rules[axis] = ()
            elif count % ways:
                alike = [name for name in self.rules if self.over(name) == self.over(axis)]
                there = [counts[name] for name in alike if name in counts and name not in WHOLE_IF_UNEVEN]
                fit = [n for n in range(1, min(count, mesh.size) + 1) if math.gcd(*there) % n == 0]
                raise MeshError(
                    f"{' x '.join(a for a in over if a in mesh.shape)} = {ways} devices cannot share {count} "
                    f"{axis.replace('_', ' ')} evenly; {', '.join(map(str, fit))} would"
                )

    @property
    def devices(self) -> int:
        """How many share an engine."""
        return math.prod(size for name, size in self.mesh.shape.items() if name != "data")

    @property
    def crops(self) -> tuple[str, ...]:
        """The axes of the mesh over which crops are split: all of an engine, where each device has a whole encoder."""
        if self.over("vision_heads") or self.over("vision_mlp"):
            return ()
        return tuple(name for name in TENSOR if self.mesh.shape.get(name, 1) > 1)

    def over(self, axis: Axis) -> tuple[str, ...]:
        """The axes of the mesh that a logical axis is split over, none for a whole one."""
        if isinstance(axis, Joined):
            found = {self.over(name) for name, _ in axis.parts}
            if len(found) > 1:
                names = ", ".join(dict.fromkeys(name for name, _ in axis.parts))
                raise MeshError(f"{names} lie in one matrix: the rules must split them over the same axes")
            return found.pop()
        names = self.rules.get(axis, ()) if axis else ()
        return tuple(name for name in names if self.mesh.shape.get(name, 1) > 1)

    def ways(self, axis: Axis) -> int:
        """Into how many shares a logical axis is split."""
        return math.prod(self.mesh.shape[name] for name in self.over(axis))

    def partition(self, spec: Spec) -> PartitionSpec:
        """Of a leaf.

        Raises:
          MeshError: a share of it would have a part of a group, or two axes of it are split over the same devices.
        """
        for axis, size in zip(spec.axes, spec.shape, strict=True):
            if (ways := self.ways(axis)) == 1:
                continue
            unit = _unit(axis, size)
            for name, each in _parts(axis, size):
                if each % (ways * unit):
                    raise MeshError(
                        f"{ways} devices cannot share {each} numbers of {name.replace('_', ' ')} in groups of {unit}: "
                        "smaller groups may"
                    )
        used = [name for axis in spec.axes for name in self.over(axis)]
        if len(used) > len(set(used)):
            names = " and ".join("/".join(dict.fromkeys(axis_names(axis))) for axis in spec.axes if self.over(axis))
            raise MeshError(f"{names} lie in one array: the rules must split them over different axes, or one of them")
        return PartitionSpec(*(self.over(axis) or None for axis in spec.axes))

    def sharding(self, spec: Spec) -> NamedSharding:
        return NamedSharding(self.mesh, self.partition(spec))

    def shardings(self, specs: Any) -> Any:
        """A tree of `Spec` as one of shardings."""
        return jax.tree.map(self.sharding, specs)

    def ranges(self, axis: Axis, size: int) -> list[tuple[int, int]]:
        """The pieces [start, stop) of an axis in the order in which devices have them."""
        if not isinstance(axis, Joined) or (ways := self.ways(axis)) == 1:
            return [(0, size)]
        counted = [each // _unit(axis, size) for _, each in axis.parts]
        starts = np.cumsum([0, *counted[:-1]]).tolist()
        sizes = [count // ways for count in counted]
        return [
            (start + device * each, start + (device + 1) * each)
            for device in range(ways)
            for start, each in zip(starts, sizes, strict=True)
        ]

    def ordered(self, array: Any, spec: Spec) -> Any:
        """A leaf with its joined axes in the order of the devices: NumPy or jax."""
        concatenate = np.concatenate if isinstance(array, np.ndarray) else jnp.concatenate
        for index, (axis, size) in enumerate(zip(spec.axes, spec.shape, strict=True)):
            ranges = self.ranges(axis, size)
            if len(ranges) > 1:
                lead = (slice(None),) * index
                array = concatenate([array[(*lead, slice(*each))] for each in ranges], axis=index)
        return array

    def restored(self, array: np.ndarray, spec: Spec) -> np.ndarray:
        """The reverse of `ordered`."""
        for index, (axis, size) in enumerate(zip(spec.axes, spec.shape, strict=True)):
            ranges = self.ranges(axis, size)
            if len(ranges) > 1:
                places = np.concatenate([np.arange(*each) for each in ranges])
                array = array.take(np.argsort(places), axis=index)
        return array

    def regrouped(self, params: Any, specs: Any) -> Any:
        """The same parameters with groups so small that each lies on one device: the factor of a larger one is
        repeated. Leaves may be specs."""

        def fit(spec: Any, node: Any) -> Any:
            if not isinstance(node, Grouped) or (ways := self.ways(axis := spec.matrix.axes[-1])) == 1:
                return node
            columns = spec.matrix.shape[-1]
            group = columns // node.scale.shape[-1]
            times = group // math.gcd(group, *(each // ways for _, each in _parts(axis, columns)))
            if times == 1:
                return node
            zero = None if node.zero is None else _repeated(node.zero, times)
            return Grouped(node.matrix, _repeated(node.scale, times), zero)

        return jax.tree.map(fit, specs, params, is_leaf=lambda node: isinstance(node, Weight))

    def placed(self, params: Any, specs: Any) -> Any:
        """Parameters in a network's own order, of which `specs` has plain matrices, as the devices of the mesh have
        them, leaf by leaf."""
        leaves, structure = jax.tree.flatten(self.regrouped(params, specs))
        del params
        for index, spec in enumerate(jax.tree.leaves(like(specs, jax.tree.unflatten(structure, leaves)))):
            leaf, sharding = self.ordered(leaves[index], spec), self.sharding(spec)
            if sharding.is_fully_addressable:
                leaves[index] = jax.block_until_ready(jax.device_put(leaf, sharding))
            else:
                leaves[index] = jax.make_array_from_callback(leaf.shape, sharding, np.asarray(leaf).__getitem__)
        return jax.tree.unflatten(structure, leaves)

    def shapes(self, specs: Any) -> Any:
        """A tree of `Spec` as jax.ShapeDtypeStruct with shardings."""
        return jax.tree.map(
            lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=self.sharding(spec)), specs
        )


class OwnOrder(Split):
    """A `Split` that leaves joined axes as they lie, for programs in which XLA moves what must move."""

    def ranges(self, axis: Axis, size: int) -> list[tuple[int, int]]:
        return [(0, size)]


def engine_split(
    mesh: Mesh | AbstractMesh, counts: Mapping[str, int], rules: Mapping[str, tuple[str, ...]] | None = None
) -> Split:
    """The `Split` of an engine; arguments, and what is raised, are those of `Split`."""
    return Split(mesh, counts, {**WHOLE_ENCODER, **({} if rules is None else _given(rules))})


def check_names(rules: Mapping[str, tuple[str, ...]] | None, known: Collection[str]) -> None:
    """Raises a MeshError where rules, if they are any, are for logical axes that are not known."""
    if isinstance(rules, Mapping) and (unknown := [name for name in rules if name not in known]):
        raise MeshError(f"rules may be for {', '.join(sorted(known))}, not for {', '.join(map(str, unknown))}")


def _given(rules: Any) -> dict[str, tuple[str, ...]]:
    """Rules as a user writes them: a single axis may be a text."""
    own = {}
    for name, over in rules.items() if isinstance(rules, Mapping) else [(None, None)]:
        over = (over,) if isinstance(over, str) else over
        if not isinstance(over, tuple | list) or not all(isinstance(axis, str) for axis in over):
            raise TypeError(f'rules are written like {{"vocab": (), "mlp": ("model",)}}, not {quoted(rules)}')
        if len(set(over)) < len(over):
            raise MeshError(f"the rules split {name} over the same axis twice")
        own[name] = tuple(over)
    return own


def _parts(axis: Axis, size: int) -> tuple[tuple[str, int], ...]:
    """Of an axis of so many numbers, which counts something."""
    return axis.parts if isinstance(axis, Joined) else ((axis or "", size),)


def _unit(axis: Axis, size: int) -> int:
    """How many neighbours of an axis a number stands for; of one that is not joined nobody asks."""
    return len(axis) // size if isinstance(axis, Joined) else 1


def _repeated(leaf: Any, times: int) -> Any:
    """Each number of the last axis so many times."""
    if isinstance(leaf, Spec):
        return dataclasses.replace(leaf, shape=(*leaf.shape[:-1], times * leaf.shape[-1]))
    return (np if isinstance(leaf, np.ndarray) else jnp).repeat(leaf, times, axis=-1)
