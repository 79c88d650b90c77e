"""Programs on a mesh: every device runs a copy on its share of parameters, keys and values, and agrees on the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxphoton.engine.state import PagedCache
from jaxphoton.layers.mesh import Split
from jaxphoton.layers.sharded import sharded
from jaxphoton.layers.spec import by_path
from jaxphoton.models.protocol import Kernels, Network

Job = tuple[Callable[..., Any], tuple[Any, ...], tuple[int, ...]]


class Spread:
    """How the programs of one network are spread over the mesh of a `Split`.

    Args:
      split: how its parameters lie there.
      specs: of its parameters, with plain matrices.
      network: whose they are.
    """

    def __init__(self, split: Split, specs: Any, network: Network):
        self.split = split
        self._encoder, self._decoder = by_path(network.encoder(specs)), by_path(network.decoder(specs))
        self.kv_ways = split.ways("kv_heads")

    def decoder(self, params: Any) -> Any:
        """`sharded` of what the text decoder's programs take."""
        return sharded(params, self.split, self._decoder)

    def encode(self, encode: Callable[..., Any], kernels: Kernels) -> Callable[..., Any]:
        """The image encoder; on a CPU the crops of a device all at once, since sums in a loop of them would meet their
        neighbours in each."""
        backend = "reference" if kernels.target is not None and kernels.target.platform == "cpu" else kernels.backend
        encode = partial(encode, kernels=dataclasses.replace(kernels, backend=backend, crops=self.split.crops))

        def run(encoder: Any, *packed: jax.Array) -> jax.Array:
            return encode(sharded(encoder, self.split, self._encoder), *packed)

        return run

    def ordered(self, arrays: Any, specs: Any) -> Any:
        """A tree in the order of the devices."""
        return jax.tree.map(self.split.ordered, arrays, specs)

    def shardings(self, tree: Any) -> Any:
        """Of what has none: keys and values by heads, all else whole on every device."""
        return jax.tree.map(partial(NamedSharding, self.split.mesh), self._specs(tree))

    def job(self, job: Job, results: Any) -> Job:
        """A program as each device of the mesh runs it, given what it returns, as shapes."""
        function, arguments, donated = job
        placed = tuple(self._placed(argument) for argument in arguments)
        specs = jax.tree.map(lambda leaf: leaf.sharding.spec, placed)
        out = self._specs(results)
        run = jax.shard_map(function, mesh=self.split.mesh, in_specs=specs, out_specs=out, check_vma=False)
        named = getattr(function, "func", function).__name__

        def program(*arguments: Any) -> Any:
            return run(*arguments)

        program.__name__ = named
        return program, placed, donated

    def _placed(self, argument: Any) -> Any:
        """The argument with a sharding for each leaf."""

        def here(leaf: Any, sharding: NamedSharding) -> Any:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(here, argument, self.shardings(argument))

    def _specs(self, tree: Any) -> Any:
        """The same structure with a PartitionSpec for each leaf: parameters and slots of adapters have theirs."""
        heads = PartitionSpec(None, None, None, self.split.over("kv_heads") or None, None)

        def of(node: Any) -> Any:
            whole = heads if isinstance(node, PagedCache) else PartitionSpec()
            return jax.tree.map(lambda leaf: getattr(getattr(leaf, "sharding", None), "spec", whole), node)

        return jax.tree.map(of, tree, is_leaf=lambda node: isinstance(node, PagedCache))
