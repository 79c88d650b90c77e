"""The GPUs that are compiled for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, use_abstract_mesh

from kernels_pallas.dispatch import Target

TARGETS = Path(__file__).parent / "targets"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: the figures of `targets/`, in the text form of XLA's GpuTargetConfigProto."""

    name: str
    figures: str

    @property
    def capability(self) -> int:
        """Compute capability times ten."""
        return 10 * self._number(r"compute_capability \{ major: (\d+)") + self._number(
            r"capability \{[^}]*minor: (\d+)"
        )

    @property
    def target(self) -> Target:
        return Target("cuda", self.capability, self._number(r"\bcore_count: (\d+)"))

    def mesh(self) -> Mesh:
        """A mesh of one such GPU, which need not exist."""
        topology = topologies.get_topology_desc(platform="cuda", target_config=self.figures, topology="1x1x1")
        return Mesh(np.array(topology.devices), ("gpu",))

    def _number(self, pattern: str) -> int:
        match = re.search(pattern, self.figures)
        assert match, f"targets/{self.name}.txtpb has no {pattern}"
        return int(match[1])


CHIPS = {name: Gpu(name, (TARGETS / f"{name}.txtpb").read_text(encoding="utf-8")) for name in ("h200", "a100", "l40s")}


def compile_for(
    chip: Gpu,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    donated: tuple[int, ...],
    options: Mapping[str, Any],
) -> Any:
    """The compiled program, whose module is called `jit_checked`.

    `arguments` are trees of jax.ShapeDtypeStruct; `options` are XLA's, for this program alone.
    """
    mesh = chip.mesh()
    place = NamedSharding(mesh, PartitionSpec())

    def checked(*operands: Any) -> Any:
        return function(*operands)

    placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), arguments)
    # From jax 0.11 on Triton asks the mesh, not the arguments, which GPU it lowers for.
    with use_abstract_mesh(mesh.abstract_mesh):
        traced = jax.jit(checked, donate_argnums=donated).trace(*placed)
        return traced.lower(lowering_platforms=("cuda",)).compile(dict(options))
