"""What several processes that share one engine must agree on before they launch anything."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from jaxphoton.config import EngineConfig
from jaxphoton.config.mesh import MeshError
from jaxphoton.layers.mesh import Split
from jaxphoton.processes.connection import PeerError
from jaxphoton.processes.peers import Peers


def require_same(peers: Peers, facts: dict[str, Any]) -> None:
    """Compares what must be the same in all processes.

    Raises:
      PeerError: it is not; the message, the same in all of them, says what.
    """
    first, *others = peers.gathered(json.loads(json.dumps(facts)))  # as the others receive them
    wrong = [
        f"process {number} has {name} {theirs.get(name)!r}, process 0 {value!r}"
        for number, theirs in enumerate(others, 1)
        for name, value in first.items()
        if theirs.get(name) != value
    ]
    if wrong:
        raise PeerError(f"all processes need the same model, settings and versions: {'; '.join(wrong)}")


def facts_of(facts: dict[str, Any], engine: EngineConfig, split: Split, params: Any) -> dict[str, Any]:
    """What `require_same` compares.

    Args:
      facts: of the machine and of the model (`Programs`).
      split: over a mesh. The order of its devices, and that of its axes, say who has which share.
    """
    devices = split.mesh.devices.flat if isinstance(split.mesh, Mesh) else ()
    mesh = {
        "mesh": list(split.mesh.shape.items()),
        "devices of the mesh": [device.id for device in devices],
        "mesh_rules": split.rules,
    }
    settings = {f"engine.{name}": value for name, value in dataclasses.asdict(engine).items()}
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        if leaf.is_fully_replicated:  # of other leaves no two processes have the same part
            digest.update(np.asarray(leaf.addressable_data(0)).tobytes())
    return facts | settings | mesh | {"weights": digest.hexdigest()[:16]}


def require_all(mesh: Mesh | AbstractMesh | None, peers: Peers | None) -> None:
    """Checks that the processes that have devices of a mesh are those that work together.

    Raises:
      MeshError: they are not.
    """
    if mesh is None and peers is not None:
        raise MeshError(f"{peers.processes} processes share a model over a mesh: give mesh")
    if not isinstance(mesh, Mesh):
        return
    there = {device.process_index for device in mesh.devices.flat}
    if peers is None and there != {jax.process_index()}:
        raise MeshError("the mesh has devices of other processes: begin with jaxphoton.distributed.start in each")
    if peers is not None and (idle := set(range(peers.processes)) - there):
        raise MeshError(
            f"the mesh has no device of process {min(idle)}: give every process fewer, or take all {jax.device_count()}"
        )
