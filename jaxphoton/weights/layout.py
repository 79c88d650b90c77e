"""Where the leaves of a model go: on one device, whole on several, or a share to each device of a mesh."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxphoton.layers.mesh import Split
from jaxphoton.layers.spec import Spec

Device = Any  # a jax.Device, which type checkers take for a variable
Placing = jax.Device | jax.sharding.Sharding | Split | None  # None is the default device
# Of each axis of a leaf, the pieces [start, stop) that somebody has, in the order in which he has them.
Ranges = tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True, slots=True)
class Share:
    """What some devices of this process have of a leaf, the same on each."""

    ranges: Ranges
    devices: tuple[Device, ...]


class Layout:
    """The shares of leaves, whose own order is that of the network.

    Attributes:
      split: None where devices have whole leaves.
    """

    def __init__(self, placing: Placing):
        self.split = placing if isinstance(placing, Split) else None
        self._placing: Any = placing

    def sharding(self, spec: Spec) -> jax.sharding.Sharding:
        if self.split is not None:
            return self.split.sharding(spec)
        if not isinstance(self._placing, jax.sharding.Sharding):
            self._placing = jax.sharding.SingleDeviceSharding(self._placing or jnp.zeros(()).device)  # type: ignore[arg-type]
        return self._placing

    def forms(self, tree: Any, specs: Any) -> Any:
        """A tree of specs in the forms that the devices have: with groups none of which lies on two."""
        return tree if self.split is None else self.split.regrouped(tree, specs)

    def pieces(self, spec: Spec) -> Ranges:
        """The whole leaf in the order in which the devices have it."""
        if self.split is None:
            return whole(spec.shape)
        return tuple(tuple(self.split.ranges(axis, size)) for axis, size in zip(spec.axes, spec.shape, strict=True))

    def shares(self, spec: Spec) -> list[Share]:
        """Of the devices of this process."""
        order, devices = self.pieces(spec), defaultdict[Ranges, list[Device]](list)
        for device, index in self.sharding(spec).addressable_devices_indices_map(spec.shape).items():
            bounds = [part.indices(size)[:2] for part, size in zip(index or (), spec.shape, strict=True)]
            ranges = tuple(cut(pieces, *each) for pieces, each in zip(order, bounds, strict=True))
            devices[ranges].append(device)
        return [Share(ranges, tuple(having)) for ranges, having in devices.items()]


def whole(shape: tuple[int, ...]) -> Ranges:
    return tuple(((0, size),) for size in shape)


def length(pieces: tuple[tuple[int, int], ...]) -> int:
    return sum(stop - start for start, stop in pieces)


def shape_of(ranges: Ranges) -> tuple[int, ...]:
    return tuple(map(length, ranges))


def cut(pieces: tuple[tuple[int, int], ...], begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """Numbers `begin` to `end` of those that lie in these pieces, counted through them."""
    found, at = [], 0
    for start, stop in pieces:
        low, high = max(begin - at, 0), min(end - at, stop - start)
        if low < high:
            found.append((start + low, start + high))
        at += stop - start
    return tuple(found)
